"""Which names there are, who may use them, and what a load does."""

import asyncio

import pytest
from support.front_door import eventually
from support.managed_models import NAMES, names, status, using

from ondol.errors import (
    ModelInUse,
    ModelNotFound,
)
from ondol.model_manager.load_order import LoadOrder

pytestmark = pytest.mark.anyio


async def test_a_loaded_model_is_served_under_its_folders_or_a_chosen_name(open_manager, shelf):
    manager = open_manager()
    model = await manager.load(LoadOrder(shelf["pinned"]))
    other = await manager.load(LoadOrder(shelf["a"], served_name="other"))
    assert (model.name, other.name) == ("pinned", "other")
    assert [served.name for served in manager.served()] == ["pinned", "other"]
    async with manager.lease("other") as leased:
        assert leased is other


async def test_names_are_compared_in_composed_form(open_manager, shelf):
    manager = open_manager()
    composed, decomposed = "\ud55c", "\u1112\u1161\u11ab"
    await manager.load(LoadOrder(shelf["a"], served_name=decomposed))
    async with manager.lease(composed) as model:
        assert model.name == composed
    async with manager.lease(decomposed) as model:
        assert model.name == composed


async def test_an_unknown_model_is_refused_before_anything_is_started(open_manager, device):
    manager = open_manager()
    with pytest.raises(ModelNotFound):
        await manager.load(LoadOrder("no-such-model"))
    assert device.engines == []
    assert "no-such-model" not in {status.id for status in manager.statuses()}


async def test_orders_for_one_name_share_one_load(open_manager, device, shelf):
    manager = open_manager()
    device.gate.clear()
    loads = [asyncio.create_task(manager.load(LoadOrder(shelf["a"]))) for _ in range(3)]
    await eventually(lambda: device.used_bytes > 0)
    device.gate.set()
    first, *others = await asyncio.gather(*loads)
    assert all(other is first for other in others)
    assert len(device.engines) == 1


async def test_loads_of_different_models_come_one_after_the_other(open_manager, device, shelf):
    manager = open_manager(max_loaded_models=3)
    await asyncio.gather(*(manager.load(LoadOrder(shelf[name])) for name in NAMES))
    assert device.most_loading == 1
    assert len(manager.served()) == 3


async def test_an_order_for_another_form_loads_anew_unless_the_model_is_in_use(open_manager, device, shelf):
    manager = open_manager()
    first = await manager.load(LoadOrder(shelf["a"]))
    assert await manager.load(LoadOrder(shelf["a"])) is first
    async with using(manager, "a"):
        with pytest.raises(ModelInUse):
            await manager.load(LoadOrder(shelf["a"], quantization="nf4"))
    second = await manager.load(LoadOrder(shelf["a"], quantization="nf4", max_model_len=64))
    assert second is not first
    assert device.configs[-1].quantization.method == "nf4"
    assert device.configs[-1].max_model_len == 64
    assert device.running == ["a"]


async def test_a_request_loads_a_model_of_this_machine(open_manager, device):
    manager = open_manager()
    async with manager.lease("b") as model:
        assert model.name == "b"
    assert device.running == ["b"]


async def test_a_request_may_not_name_a_folder(open_manager, device, shelf):
    manager = open_manager()
    for name in (shelf["a"], "../a", "pinned"):
        with pytest.raises(ModelNotFound):
            async with manager.lease(name):
                pass
    assert device.engines == []


async def test_without_permission_requests_load_nothing(open_manager, shelf):
    manager = open_manager(load_on_request=False)
    await manager.load(LoadOrder(shelf["a"]))
    await manager.refresh()
    assert names(manager) == {"a"}
    with pytest.raises(ModelNotFound) as refusal:
        async with manager.lease("b"):
            pass
    assert refusal.value.known == ("a",)


async def test_models_of_the_catalog_are_known_but_requests_may_not_name_them(open_manager):
    manager = open_manager(max_loaded_models=2)
    await manager.refresh()
    (status,) = [status for status in manager.statuses() if status.id == "llama-2-7b-chat"]
    assert (status.status, status.path, status.source) == ("unloaded", None, {"kind": "hub"})
    assert "llama-2-7b-chat" not in names(manager)


async def test_pinned_models_that_fill_all_places_are_all_that_requests_may_name(open_manager, shelf):
    manager = open_manager(max_loaded_models=1)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    await manager.refresh()
    assert names(manager) == {"pinned"}
    here = {status.id for status in manager.statuses() if status.path is not None}
    assert here == {"pinned", *NAMES}
    with pytest.raises(ModelNotFound):
        async with manager.lease("a"):
            pass


async def test_an_order_takes_a_pinned_models_place_and_a_request_brings_it_back(open_manager, device, shelf):
    manager = open_manager(max_loaded_models=1)
    await manager.load(LoadOrder(shelf["pinned"], is_pinned=True))
    await manager.load(LoadOrder(shelf["pinned"]))  # says nothing about pinning
    assert status(manager, "pinned").is_pinned
    await manager.load(LoadOrder("a"))
    assert device.running == ["a"]
    await manager.refresh()
    assert names(manager) == {"pinned", *NAMES}
    async with manager.lease("pinned"):
        assert device.running == ["pinned"]
    assert status(manager, "pinned").is_pinned
