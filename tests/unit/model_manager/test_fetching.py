import asyncio
import os

import pytest
from support.fake_hub import REPO, Visitor
from support.front_door import eventually

from ondol.errors import ConfigError, HubAccessNotGranted, ModelNotFound
from ondol.model_manager.fetching import fetch
from ondol.model_manager.library import Library

pytestmark = pytest.mark.anyio

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(fake_hub, monkeypatch, tmp_path):
    """The fake Hub, as processes that are started from here see it."""
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.base_url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return fake_hub


def weights_in(folder):
    return [path for path in folder.rglob(WEIGHTS) if path.stat().st_size]


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children", encoding="ascii") as ids:
        return ids.read().split()


async def test_a_model_comes_in_a_process_of_its_own_that_tells_how_far_it_is(hub, tmp_path):
    heard = []
    await fetch(REPO, tmp_path, is_refresh=False, on_bytes=lambda *numbers: heard.append(numbers))
    assert weights_in(tmp_path / "hf")
    done_bytes, total_bytes = heard[-1]
    assert done_bytes == total_bytes >= len(hub.files[WEIGHTS])


async def test_errors_keep_their_class_and_data(hub, tmp_path, monkeypatch):
    with pytest.raises(ModelNotFound) as unknown:
        await fetch("no-such-model", tmp_path, is_refresh=True)
    assert unknown.value.name == "no-such-model"
    assert "starter" in unknown.value.known
    hub.is_gated = True
    hub.visitors["token"] = Visitor(access="not asked")
    monkeypatch.setenv("HF_TOKEN", "token")
    with pytest.raises(HubAccessNotGranted) as refusal:
        await fetch(REPO, tmp_path, is_refresh=False)
    assert REPO in refusal.value.page
    assert "\n" not in str(refusal.value)


async def test_a_cancelled_fetch_ends_its_process_at_once(hub, tmp_path):
    hub.holds[WEIGHTS] = 100
    before = set(children())
    fetching = asyncio.create_task(fetch(REPO, tmp_path, is_refresh=False))
    await eventually(lambda: WEIGHTS in "".join(hub.requests), 60)
    assert set(children()) - before
    fetching.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({fetching})
    assert fetching.cancelled()
    assert set(children()) <= before


async def test_the_library_finds_what_is_here_and_knows_what_would_have_to_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))
    library = Library(tmp_path)
    assert await library.find("starter") is None
    assert await library.find("owner/unknown") is None
    with pytest.raises(ModelNotFound):
        await library.find("no-such-model")


async def test_a_cache_that_may_not_be_written_to_is_told_as_such(hub, tmp_path):
    (tmp_path / "hf").write_text("a file where the cache should be")
    with pytest.raises(ConfigError, match="cannot be used: Not a directory"):
        await fetch(REPO, tmp_path, is_refresh=False)
