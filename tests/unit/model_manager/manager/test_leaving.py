"""Idle unloads, unloads on demand, engines that die, and callers that go away."""

import asyncio
import math

import pytest
from support.front_door import eventually
from support.managed_models import NAMES, leased, names, phase, status, using

from ondol.errors import (
    EngineFailed,
    LoadStopped,
    ModelInUse,
    ModelNotFound,
    ModelRefused,
)
from ondol.model_manager.load_order import LoadOrder

pytestmark = pytest.mark.anyio


async def test_an_idle_model_is_unloaded_after_its_keep_alive(open_manager, device):
    manager = open_manager(keep_alive_s=0.02)
    async with manager.lease("a"):
        await asyncio.sleep(0.05)
        assert device.running == ["a"]
        assert status(manager, "a").expires_at is None
    assert status(manager, "a").expires_at is not None
    await eventually(lambda: phase(manager, "a") == "unloaded")
    assert device.used_bytes == 0


async def test_a_requests_keep_alive_holds_until_the_next_request(open_manager):
    manager = open_manager(keep_alive_s=math.inf)
    async with manager.lease("a", keep_alive_s=1000):
        pass
    assert status(manager, "a").expires_at is not None
    async with manager.lease("a"):
        pass
    assert status(manager, "a").expires_at is None
    async with manager.lease("a", keep_alive_s=0):
        pass
    await eventually(lambda: phase(manager, "a") == "unloaded")


async def test_a_pinned_model_is_never_unloaded_for_being_idle(open_manager, shelf):
    manager = open_manager(keep_alive_s=0)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    async with manager.lease("pinned", keep_alive_s=0):
        pass
    await asyncio.sleep(0.02)
    assert phase(manager, "pinned") == "loaded"


async def test_an_unload_gives_all_memory_back_and_the_model_can_come_again(open_manager, device, shelf):
    manager = open_manager()
    await manager.load(LoadOrder(shelf["pinned"]))
    await manager.unload("pinned")
    assert device.used_bytes == 0
    assert phase(manager, "pinned") == "unloaded"
    assert "pinned" in names(manager)
    async with manager.lease("pinned"):
        assert device.running == ["pinned"]


async def test_an_unload_waits_for_no_stream_and_cuts_none_unless_forced(open_manager, device):
    manager = open_manager()
    async with using(manager, "a"):
        with pytest.raises(ModelInUse) as refusal:
            await manager.unload("a")
        assert refusal.value.num_streams == 1
        await manager.unload("a", force=True)
        assert device.running == []


async def test_unloading_what_is_not_loaded_is_no_error_unless_nobody_knows_it(open_manager):
    manager = open_manager()
    await manager.refresh()
    await manager.unload("a")
    with pytest.raises(ModelNotFound):
        await manager.unload("nobody")


async def test_an_unload_stops_a_load_and_tells_those_who_wait(open_manager, device, shelf):
    manager = open_manager()
    device.gate.clear()
    ordered = asyncio.create_task(manager.load(LoadOrder("a")))
    await eventually(lambda: device.used_bytes > 0)
    asked = asyncio.create_task(anext(leased(manager, "a")))
    await asyncio.sleep(0)
    await manager.unload("a")
    for waiting in (ordered, asked):
        with pytest.raises(LoadStopped):
            await waiting
    assert device.used_bytes == 0
    assert phase(manager, "a") == "unloaded"


async def test_a_cancelled_order_takes_its_load_along_unless_others_wait(open_manager, device):
    manager = open_manager()
    device.gate.clear()
    orders = [asyncio.create_task(manager.load(LoadOrder("a"))) for _ in range(2)]
    await eventually(lambda: device.used_bytes > 0)
    orders[0].cancel()
    await asyncio.wait({orders[0]})
    assert phase(manager, "a") == "loading"
    orders[1].cancel()
    await asyncio.wait({orders[1]})
    await eventually(lambda: phase(manager, "a") == "unloaded")
    assert device.used_bytes == 0


async def test_a_request_that_goes_away_leaves_its_load_running(open_manager, device):
    manager = open_manager(keep_alive_s=1000)
    device.gate.clear()
    request = asyncio.create_task(anext(leased(manager, "a")))
    await eventually(lambda: device.used_bytes > 0)
    request.cancel()
    await asyncio.wait({request})
    device.gate.set()
    await eventually(lambda: phase(manager, "a") == "loaded")
    assert status(manager, "a").num_streams == 0
    assert status(manager, "a").expires_at is not None


@pytest.mark.parametrize("step", ["plan", "proceed"])
async def test_a_failed_load_leaves_nothing_and_can_be_tried_again(open_manager, device, step):
    manager = open_manager()
    device.failures["a", step] = ModelRefused("it is broken")
    for _ in range(2):
        with pytest.raises(ModelRefused, match="broken"):
            async with manager.lease("a"):
                pass
    assert device.running == []
    assert phase(manager, "a") == "failed"
    device.failures.clear()
    async with manager.lease("a"):
        assert phase(manager, "a") == "loaded"


async def test_a_dead_engine_is_replaced_at_the_next_use(open_manager, device, shelf):
    manager = open_manager(max_loaded_models=1)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    device.engines[0].die("killed by SIGKILL")
    assert phase(manager, "pinned") == "failed"
    assert isinstance(status(manager, "pinned").error, EngineFailed)
    assert [model.name for model in manager.served()] == ["pinned"]
    uses = [asyncio.create_task(anext(leased(manager, "pinned"))) for _ in range(3)]
    models = await asyncio.gather(*uses)
    assert all(model.engine is device.engines[1] for model in models)
    assert len(device.engines) == 2
    assert phase(manager, "pinned") == "loaded"


async def test_a_folder_that_is_loaded_under_another_name_is_not_loaded_twice(open_manager, device, home):
    manager = open_manager()
    await manager.load(LoadOrder(str(home / "models" / "a"), served_name="mine"))
    async with manager.lease("a") as model:
        assert model.name == "mine"
    assert device.running == ["a"]
    assert "a" not in {status.id for status in manager.statuses()}


async def test_watchers_hear_of_every_status_and_of_progress(open_manager, shelf):
    manager = open_manager()
    events = manager.watch()

    async def listen():
        return [(event.kind, event.status.status) async for event in events]

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await manager.load(LoadOrder(shelf["a"]))
    await manager.unload("a")
    await manager.close()
    heard = await listener
    assert [status for kind, status in heard if kind == "status"][-3:] == ["loaded", "unloading", "unloaded"]
    assert ("progress", "loading") in heard or ("status", "loading") in heard


async def test_closing_gives_up_loads_and_ends_all_engines(open_manager, device, shelf):
    manager = open_manager()
    await manager.load(LoadOrder(shelf["a"]))
    device.gate.clear()
    coming = asyncio.create_task(manager.load(LoadOrder("b")))
    await eventually(lambda: len(device.running) == 2)
    await manager.close()
    with pytest.raises(LoadStopped):
        await coming
    assert device.running == []


async def test_leases_loads_and_unloads_in_any_order_keep_every_promise(open_manager, device):
    """Forty callers at once: nobody gets a dead engine, and the device never overflows."""
    device.weights = {"a": 30, "b": 40, "c": 55}
    manager = open_manager(keep_alive_s=0.001)

    async def ask(index):
        await asyncio.sleep(index % 7 / 1000)
        name = NAMES[index % 3]
        async with manager.lease(name, keep_alive_s=0 if index % 5 == 0 else None) as model:
            assert model.engine.is_alive
            await asyncio.sleep(index % 4 / 1000)
            assert model.engine.is_alive, "a leased model stays"

    async def meddle(index):
        await asyncio.sleep(index / 500)
        try:
            await manager.unload(NAMES[index % 3])
        except (ModelInUse, ModelNotFound):
            return

    async with asyncio.timeout(30):
        results = await asyncio.gather(*map(ask, range(40)), *map(meddle, range(10)), return_exceptions=True)
    unexpected = [one for one in results if one is not None and not isinstance(one, LoadStopped)]
    assert unexpected == []
    await eventually(lambda: device.used_bytes == 0)
