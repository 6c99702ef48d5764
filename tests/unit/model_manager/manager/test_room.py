"""Who leaves for whom, and how much memory each model gets."""

import asyncio

import pytest
from support.fake_device import MAX_KV
from support.front_door import eventually
from support.managed_models import leased, phase, status, using

from ondol.errors import (
    DoesNotFit,
    NoRoomYet,
)
from ondol.model_manager.load_order import LoadOrder

pytestmark = pytest.mark.anyio


async def test_the_least_recently_used_model_leaves_and_a_used_one_stays(open_manager, device):
    manager = open_manager()
    for name in ("a", "b", "a"):
        async with manager.lease(name):
            pass
    async with manager.lease("c"):
        assert sorted(device.running) == ["a", "c"]


async def test_models_leave_for_memory_too(open_manager, device):
    device.weights = {"c": 60}
    manager = open_manager(max_loaded_models=3)
    for name in ("a", "b", "c"):
        async with manager.lease(name):
            pass
    assert device.used_bytes <= 100
    assert sorted(device.running) == ["b", "c"]


async def test_a_model_in_use_leaves_when_its_streams_have_ended_and_takes_none_meanwhile(
    open_manager, device
):
    manager = open_manager(max_loaded_models=1)
    async with using(manager, "a") as done:
        coming = asyncio.create_task(manager.load(LoadOrder("b")))
        await eventually(lambda: phase(manager, "a") == "unloading")
        assert device.running == ["a", "b"]  # the engine of b has its plan and no memory
        assert status(manager, "b").progress.stage == "waiting"
        late = asyncio.create_task(anext(leased(manager, "a")))
        await asyncio.sleep(0)
        assert not coming.done()
        done.set()
        assert (await coming).name == "b"
    assert (await late).name == "a"


async def test_a_load_that_waits_too_long_for_streams_gives_up_and_nobody_is_cut(open_manager, device):
    manager = open_manager(max_loaded_models=1, eviction_wait_s=0.05)
    async with using(manager, "a"):
        with pytest.raises(NoRoomYet) as refusal:
            await manager.load(LoadOrder("b"))
        assert refusal.value.retry_after_s > 0
        assert device.running == ["a"]
        async with manager.lease("a"):
            pass


async def test_what_can_never_fit_is_refused_and_nobody_leaves(open_manager, device):
    device.weights = {"b": 100}
    manager = open_manager(max_loaded_models=1)
    async with manager.lease("a"):
        pass
    with pytest.raises(DoesNotFit, match="--memory-budget"):
        await manager.load(LoadOrder("b"))
    assert device.running == ["a"]
    assert phase(manager, "b") == "failed"
    assert isinstance(status(manager, "b").error, DoesNotFit)


async def test_a_requests_model_does_not_push_out_a_pinned_one(open_manager, device, shelf):
    device.weights = {"pinned": 60, "a": 60}
    manager = open_manager()
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    with pytest.raises(DoesNotFit):
        async with manager.lease("a"):
            pass
    assert device.running == ["pinned"]
    await manager.load(LoadOrder("a"))
    assert device.running == ["a"]


async def test_each_model_gets_its_share_of_the_budget_for_its_cache(open_manager, device):
    device.weights = {"a": 45}
    manager = open_manager(memory_budget_bytes=100)
    async with manager.lease("a") as model:
        assert model.engine.ready.kv_cache_bytes == 4
    async with manager.lease("b") as model:
        assert model.engine.ready.kv_cache_bytes == MAX_KV


async def test_sizes_that_were_asked_for_go_before_the_share(open_manager, device):
    manager = open_manager(engine={"kv_cache_memory": 7})
    async with manager.lease("a") as model:
        assert model.engine.ready.kv_cache_bytes == 7
    model = await manager.load(LoadOrder("b", kv_cache_bytes=9))
    assert model.engine.ready.kv_cache_bytes == 9


async def test_a_choice_of_quantization_is_told_what_it_may_fill(open_manager, device, shelf):
    manager = open_manager(memory_budget_bytes=80)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    held = status(manager, "pinned").memory.total_bytes
    async with manager.lease("a"):
        pass
    assert [config.memory_bytes for config in device.configs] == [80, 80 - held]
    assert {config.memory_share for config in device.configs} == {0.5}
