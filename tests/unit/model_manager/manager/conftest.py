"""One device, one store of three models, and managers that are closed in the end."""

import pytest
from support.fake_device import FakeDevice, save_bare_model
from support.managed_models import NAMES

from ondol.config import ManagerSettings, Settings
from ondol.model_manager.manager import ModelManager


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Folders of models that nobody has registered."""
    folder = tmp_path_factory.mktemp("shelf")
    return {name: str(save_bare_model(folder / name)) for name in (*NAMES, "pinned")}


@pytest.fixture(scope="module")
def home(tmp_path_factory, shelf):
    """A store with the models a, b and c."""
    home = tmp_path_factory.mktemp("home")
    for name in NAMES:
        save_bare_model(home / "models" / name)
    return home


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture
async def open_manager(home, device):
    """Makes managers of one device, which are closed in the end."""
    managers = []

    def make(*, max_loaded_models=2, eviction_wait_s=5.0, engine=None, **settings):
        manager = ModelManager(
            ManagerSettings(home, max_loaded_models=max_loaded_models, **settings),
            Settings(**(engine or {})).engine(),
            engine_factory=device.spawn,
            eviction_wait_s=eviction_wait_s,
        )
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.close()
    assert device.running == []
    assert device.used_bytes == 0
