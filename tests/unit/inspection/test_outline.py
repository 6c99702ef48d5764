import json
import os

import pytest
from support.checkpoints import save_checkpoint
from support.fake_hub import COMMIT, REPO, FakeHub

from ondol.errors import AccessDenied, ModelNotFound, ModelRefused
from ondol.inspection.facts import read_facts
from ondol.inspection.header_checkpoint import HeaderCheckpoint
from ondol.inspection.outline import open_outline, read_raw_config
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import RECORD_FILE, ModelStore


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("outline") / "tiny", "llama")


@pytest.fixture
def hub(tiny, monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    files = {file.name: file.read_bytes() for file in tiny.iterdir()} | {"tokenizer.json": b"{}"}
    with FakeHub(files).serve() as fake_hub:
        yield fake_hub, Hub(Progress(), endpoint=fake_hub.base_url, cache=tmp_path / "cache")


def test_a_folder_is_read_in_place(tiny, tmp_path):
    with open_outline(str(tiny), tmp_path) as outline:
        assert (outline.name, outline.folder, outline.origin) == ("tiny", tiny, "folder")
        assert outline.has_contents
        assert type(outline.checkpoint()).__name__ == "Checkpoint"


def test_a_config_alone_is_an_outline(tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    with open_outline(str(tmp_path), tmp_path / "home") as outline:
        assert outline.checkpoint() is None
        assert read_facts(outline).num_layers == 3


def test_a_registered_model_tells_its_licence(tiny, tmp_path):
    with ModelStore(tmp_path).staging("mine") as folder:
        (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
        (folder / RECORD_FILE).write_text(json.dumps({"kind": "wheel", "licence": "MIT"}))
    with open_outline("mine", tmp_path) as outline:
        assert (outline.origin, outline.licence) == ("store", "MIT")


def test_a_hub_model_is_outlined_without_its_weights(hub, tiny, tmp_path):
    fake_hub, library = hub
    with open_outline(REPO, tmp_path, hub=library) as outline:
        assert (outline.name, outline.origin) == (REPO, f"{REPO}@{COMMIT}")
        assert isinstance(outline.checkpoint(), HeaderCheckpoint)
        assert not outline.has_contents
        assert read_facts(outline).num_parameters > 0
        folder = outline.folder
    assert not folder.exists()
    assert not (tmp_path / "models").exists()
    assert fake_hub.ranges("model.safetensors") == ["bytes=0-131071"]


def test_a_gated_hub_model_is_refused_as_its_download_would_be(hub, tmp_path):
    fake_hub, library = hub
    fake_hub.is_gated = True
    with pytest.raises(AccessDenied, match=REPO), open_outline(REPO, tmp_path, hub=library):
        pass


def test_a_model_inside_a_package_asks_to_be_pulled_first(tmp_path):
    with pytest.raises(ModelRefused, match="ondol pull starter"), open_outline("starter", tmp_path):
        pass


def test_an_unknown_name_names_known_ones(tmp_path):
    with pytest.raises(ModelNotFound, match="starter"), open_outline("no-such-model", tmp_path):
        pass


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        read_raw_config(tmp_path)


def test_quantized_weights_cannot_be_described_by_a_config_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with (
        open_outline(str(tmp_path), tmp_path / "home") as outline,
        pytest.raises(ModelRefused, match="headers"),
    ):
        outline.headers("gptq")
