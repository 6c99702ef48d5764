import asyncio
import math
from contextlib import asynccontextmanager

import pytest
from support.fake_device import MAX_KV, FakeDevice, save_bare_model
from support.front_door import eventually

from ondol.config import ManagerSettings, Settings
from ondol.errors import (
    DoesNotFit,
    EngineFailed,
    LoadStopped,
    ModelInUse,
    ModelNotFound,
    ModelRefused,
    NoRoomYet,
)
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.manager import ModelManager

pytestmark = pytest.mark.anyio

NAMES = ("a", "b", "c")


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


def phase(manager, name):
    return status(manager, name).status


def status(manager, name):
    return next(status for status in manager.statuses() if status.id == name)


def names(manager):
    return {summary.name for summary in manager.nameable()}


@asynccontextmanager
async def using(manager, name, **options):
    """A lease that a task of its own holds while the block runs."""
    done = asyncio.Event()
    begun = asyncio.Event()

    async def hold():
        async with manager.lease(name, **options):
            begun.set()
            await done.wait()

    holder = asyncio.create_task(hold())
    await asyncio.wait({holder, asyncio.create_task(begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield done
    finally:
        done.set()
        await holder


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
        late = asyncio.create_task(anext(aiter_of(manager, "a")))
        await asyncio.sleep(0)
        assert not coming.done()
        done.set()
        assert (await coming).name == "b"
    assert (await late).name == "a"


async def aiter_of(manager, name):
    async with manager.lease(name) as model:
        yield model


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
    asked = asyncio.create_task(anext(aiter_of(manager, "a")))
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
    request = asyncio.create_task(anext(aiter_of(manager, "a")))
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
    uses = [asyncio.create_task(anext(aiter_of(manager, "pinned"))) for _ in range(3)]
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
