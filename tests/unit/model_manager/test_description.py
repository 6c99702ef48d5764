import io
import json

import huggingface_hub.constants
import pytest
from support.fake_hub import COMMIT, REPO

from ondol.errors import ModelNotFound
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.description import describe
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_a_registered_model_is_described_by_its_files_and_its_record(tmp_path):
    with ModelStore(tmp_path).staging("mine") as folder:
        (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
        (folder / "generation_config.json").write_text('{"temperature": 0.5, "top_k": 20}')
        record = {"kind": "gguf", "file": "/models/mine.gguf", "licence": "MIT"}
        (folder / "ondol.json").write_text(json.dumps(record))
    description = describe("mine", tmp_path)
    assert (description.status, description.source) == ("ready", "gguf /models/mine.gguf")
    assert (description.licence, description.record) == ("MIT", record)
    assert description.config is not None
    assert (description.config.model_type, description.config.context_length) == ("llama", 4096)
    assert description.generation == {"temperature": 0.5, "top_k": 20}
    assert [name for name, _ in description.files] == ["config.json", "generation_config.json", "ondol.json"]
    assert description.size_bytes == sum(size for _, size in description.files)


def test_a_catalog_entry_that_was_not_pulled_says_what_the_catalog_knows(tmp_path):
    description = describe("bllossom-8b", tmp_path)
    assert description.name == "llama-3-korean-bllossom-8b"
    assert (description.status, description.source) == (
        "available",
        "hub MLP-KTLim/llama-3-Korean-Bllossom-8B",
    )
    assert description.recommended == {"quantization": "auto"}
    assert (description.config, description.files, description.path) == (None, (), None)


def test_a_gated_repository_is_known_by_its_hub_id_too(tmp_path):
    description = describe("meta-llama/Llama-2-7b-chat-hf", tmp_path)
    assert (description.is_gated, description.licence) == (True, "Llama 2 Community License")
    assert description.page == f"{huggingface_hub.constants.ENDPOINT}/meta-llama/Llama-2-7b-chat-hf"


def test_of_a_repository_that_nobody_knows_nothing_is_claimed(tmp_path):
    description = describe("owner/name@v2", tmp_path)
    assert (description.status, description.revision, description.is_gated) == ("available", "v2", None)


def test_a_cached_snapshot_tells_its_commit(tmp_path, fake_hub, hub_cache):
    folder = Hub(Progress(io.StringIO()), endpoint=fake_hub.base_url, cache=hub_cache).pull(
        HubSource(repo=REPO)
    )
    description = describe(REPO, tmp_path)
    assert (description.status, description.commit, description.path) == ("ready", COMMIT, str(folder))
    (folder / "config.json").unlink()
    assert describe(REPO, tmp_path).status == "incomplete"


def test_an_unknown_name_is_not_found(tmp_path):
    with pytest.raises(ModelNotFound):
        describe("nosuch", tmp_path)
