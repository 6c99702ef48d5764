"""Unloads that wait for the answers which are being written, and what becomes of requests meanwhile."""

import asyncio

import pytest
from support.front_door import eventually
from support.managed_models import phase, status, using

from ondol.errors import Unloading
from ondol.model_manager.load_order import LoadOrder

pytestmark = pytest.mark.anyio


@pytest.fixture
async def order():
    """Begins to wait for an unload; what is left of it ends with the test."""
    orders = []

    def begin(manager, name="a"):
        orders.append(asyncio.create_task(manager.unload(name, waits=True)))
        return orders[-1]

    yield begin
    for task in orders:
        task.cancel()
    await asyncio.gather(*orders, return_exceptions=True)


async def engine_of(manager, name="a"):
    async with manager.lease(name) as model:
        return model.engine


async def test_it_waits_for_open_answers_and_cuts_none(open_manager, device, order):
    manager = open_manager()
    async with using(manager, "a"):
        unload = order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        assert device.engines[0].is_alive
        assert not unload.done()
    await unload
    assert device.used_bytes == 0
    assert phase(manager, "a") == "unloaded"


async def test_without_answers_it_is_done_at_once(open_manager, device, order):
    manager = open_manager()
    await manager.load(LoadOrder("a"))
    await order(manager)
    assert device.running == []


async def test_new_requests_cannot_hold_it_off_and_get_the_model_loaded_anew(open_manager, device, order):
    manager = open_manager()
    async with using(manager, "a"):
        unload = order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        late = [asyncio.create_task(engine_of(manager)) for _ in range(3)]
        await asyncio.sleep(0)
        assert status(manager, "a").num_streams == 1
    await unload
    assert await asyncio.gather(*late) == [device.engines[1]] * 3
    assert not device.engines[0].is_alive
    assert phase(manager, "a") == "loaded"


async def test_where_requests_load_nothing_they_are_refused_until_it_is_gone(open_manager, shelf, order):
    manager = open_manager(load_on_request=False)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    async with using(manager, "pinned"):
        unload = order(manager, "pinned")
        await eventually(lambda: phase(manager, "pinned") == "unloading")
        with pytest.raises(Unloading) as refusal:
            await engine_of(manager, "pinned")
        assert refusal.value.retry_after_s > 0
    await unload


async def test_whoever_stops_waiting_takes_the_order_back(open_manager, device, order):
    manager = open_manager()
    async with using(manager, "a"):
        unload = order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        late = asyncio.create_task(engine_of(manager))
        unload.cancel()
        assert await late is device.engines[0]
    assert phase(manager, "a") == "loaded"


async def test_the_second_who_waits_is_not_stopped_with_the_first(open_manager, device, order):
    manager = open_manager()
    async with using(manager, "a"):
        first, second = order(manager), order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        first.cancel()
        await asyncio.wait({first})
        await eventually(lambda: phase(manager, "a") == "unloading")
        assert device.engines[0].is_alive
    await second
    assert phase(manager, "a") == "unloaded"


async def test_a_model_that_a_request_has_loaded_again_is_left_to_it(open_manager, device, order):
    manager = open_manager()
    async with using(manager, "a"):
        first = order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        late = asyncio.create_task(engine_of(manager))
        await asyncio.sleep(0)
        second = order(manager)
        await asyncio.sleep(0)
    await asyncio.gather(first, second)
    assert await late is device.engines[1]


async def test_an_engine_that_dies_meanwhile_is_replaced_although_the_order_is_taken_back(
    open_manager, device, order
):
    manager = open_manager()
    async with using(manager, "a"):
        unload = order(manager)
        await eventually(lambda: phase(manager, "a") == "unloading")
        device.engines[0].die("killed by SIGKILL")
        unload.cancel()
        await asyncio.wait({unload})
    async with asyncio.timeout(5):
        assert await engine_of(manager) is device.engines[1]
