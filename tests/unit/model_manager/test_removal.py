import io
import os

import huggingface_hub.constants
import pytest
from support.fake_hub import REPO

from ondol.errors import InvalidRequest, ModelNotFound
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.inventory import list_models
from ondol.model_manager.progress import Progress
from ondol.model_manager.removal import plan_removal, remove
from ondol.model_manager.store import ModelStore


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def registered(home):
    with ModelStore(home).staging("mine") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(1000))
    return home / "models" / "mine"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_a_plan_tells_what_would_go_and_changes_nothing(registered, home):
    removal = plan_removal("mine", home)
    assert (removal.name, removal.path, removal.freed_bytes) == ("mine", registered, 1002)
    assert registered.is_dir()


def test_a_registered_model_is_removed_with_all_its_files(registered, home):
    assert remove("mine", home) == 1002
    assert not registered.exists()
    assert list((home / "tmp").iterdir()) == []
    with pytest.raises(ModelNotFound):
        remove("mine", home)


def test_weights_that_another_folder_links_to_free_nothing(registered, home, tmp_path):
    os.link(registered / "model.safetensors", tmp_path / "model.safetensors")
    assert remove("mine", home) == 2
    assert (tmp_path / "model.safetensors").stat().st_size == 1000


def test_a_folder_that_somebody_linked_into_the_store_keeps_its_files(registered, home):
    (home / "models" / "linked").symlink_to(registered)
    assert remove("linked", home) == 0
    assert not (home / "models" / "linked").is_symlink()
    assert (registered / "model.safetensors").is_file()


def test_a_model_of_the_hubs_cache_is_removed_whole(fake_hub, hub_cache, home):
    folder = Hub(Progress(io.StringIO()), endpoint=fake_hub.base_url, cache=hub_cache).pull(
        HubSource(repo=REPO)
    )
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    assert remove(REPO, home) == size_bytes
    assert not any(REPO.partition("/")[2] in str(path) for path in hub_cache.rglob("*"))
    assert REPO not in {listing.name for listing in list_models(home)}


def test_what_an_interrupted_download_left_can_be_removed(hub_cache, home):
    blobs = hub_cache / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"half")
    assert remove("owner/name", home) == 4
    assert list(hub_cache.iterdir()) == []


def test_one_revision_alone_is_not_removed(hub_cache, home):
    (hub_cache / "models--owner--name" / "snapshots").mkdir(parents=True)
    with pytest.raises(InvalidRequest, match="leave @v2 away"):
        remove("owner/name@v2", home)


def test_a_folder_of_the_users_own_is_never_touched(tmp_path, home):
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="folder of your own"):
        remove(str(own), home)
    assert (own / "config.json").is_file()


@pytest.mark.parametrize("model", ["qwen2-7b-instruct", "starter", "owner/absent", "nosuch"])
def test_what_is_not_on_this_machine_cannot_be_removed(registered, home, model):
    with pytest.raises(
        ModelNotFound, match="does not exist" if model == "nosuch" else "not on this machine"
    ) as caught:
        remove(model, home)
    assert "mine" in caught.value.known
