"""Which models are loaded, under which names, for how long, and who is using them.

One engine process per loaded model, all within one memory budget (docs/adr/0008). Knows nothing about HTTP
or about how an engine computes. Invariant: whoever holds a lease has an engine that no unload takes away,
and every engine that was started is closed by `close`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ondol.config import EngineSettings, ManagerSettings
from ondol.engine.client import EngineClient
from ondol.errors import Loading, OndolError
from ondol.model_manager.library import Library
from ondol.model_manager.load_order import LoadOrder, normalized
from ondol.model_manager.loaded_model import LoadedModel
from ondol.model_manager.loader import EngineFactory, Loader
from ondol.model_manager.memory_budget import MemoryBudget
from ondol.model_manager.model_events import ModelEvent, ModelEvents
from ondol.model_manager.model_slot import ModelSlot
from ondol.model_manager.model_status import ModelStatus, ModelSummary
from ondol.model_manager.removal import plan_removal, remove
from ondol.model_manager.room import Room
from ondol.model_manager.roster import Roster
from ondol.model_manager.unloader import Unloader

__all__ = ["LoadedModel", "ModelManager"]

# How long a load waits for the streams of models that have to leave for it.
EVICTION_WAIT_S = 30.0


class ModelManager:
    """The models of one daemon; belongs to one event loop.

    Args:
        settings: how many models, for how long, in how much memory.
        engine_settings: what engines are asked for where an order says nothing.
        engine_factory: starts an engine process that waits for its configuration.
        eviction_wait_s: how long a load waits for the streams of models that have to leave for it.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        engine_settings: EngineSettings,
        *,
        engine_factory: EngineFactory = EngineClient.spawn,
        eviction_wait_s: float = EVICTION_WAIT_S,
    ) -> None:
        self._settings = settings
        self._events = ModelEvents()
        self._library = Library(settings.home)
        budget = MemoryBudget(settings.memory_budget_bytes, settings.max_loaded_models)
        self._unloader = Unloader(budget)
        self._roster = Roster(settings, self._library, self._events, self._unloader.expire)
        room = Room(budget, self._roster.slots, self._unloader.unload, eviction_wait_s)
        self._loader = Loader(settings, engine_settings, self._library, budget, room, engine_factory)

    async def load(self, order: LoadOrder) -> LoadedModel:
        """Load a model, or take the one that is loaded already as the order says.

        Concurrent orders for one name share one load; whoever is the last to wait for it and is cancelled
        takes it along. A model that is loaded in another way is loaded anew.

        Raises:
            ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied: there is no such model to be had.
            DoesNotFit, NoRoomYet: others hold the memory, or it is too small.
            DeviceUnusable, EngineFailed: the engine did not come up.
            ModelInUse: it is loaded in another way and answers requests.
            LoadStopped: an unload gave it up.
        """
        order = self._roster.meant(order)
        while True:
            slot = self._roster.find(order.name)
            if slot is None or slot.is_away:
                slot = await self._roster.slot_for(order)
                if slot.is_away:  # nobody has come first
                    self._start_load(slot, order, is_request=False)
            if slot.is_serving and order.loads_like(slot.order):
                return self._adopt(slot, order)
            if slot.is_coming:
                model = await slot.outcome()
                if model is not None and order.loads_like(slot.order):
                    return model
            else:
                slot.check_idle()
                await self._make_away(slot)

    @asynccontextmanager
    async def lease(
        self, name: str, *, keep_alive_s: float | None = None
    ) -> AsyncGenerator[LoadedModel, None]:
        """Use a model by name; loads one of this machine if requests may do so.

        Args:
            name: one of `nameable`.
            keep_alive_s: how long the model stays after this use, until the next says otherwise.

        Raises:
            ModelNotFound: carries the names that would have worked.
            Loading: it is being downloaded.
            Unloading: it ends its last answers, and requests may not load it again.
            OndolError: as `load`.
        """
        slot = await self._acquire(normalized(name), keep_alive_s)
        try:
            assert slot.model is not None, "a leased model stays"
            yield slot.model
        finally:
            slot.end_lease()

    async def unload(self, name: str, *, force: bool = False, waits: bool = False) -> None:
        """Give a model's memory back, or give up its load or download; returns when that is done.

        Args:
            name: the model's; one that is not loaded is no error.
            force: end its streams, with an error.
            waits: let its streams end, and no new one begin; a caller who is cancelled takes that back.

        Raises:
            ModelNotFound: no such model is known.
            ModelInUse: it answers requests, and nobody waits for their end.
        """
        slot = self._roster.find(normalized(name))
        if slot is None:
            self._roster.status(normalized(name))
            return
        while not slot.is_away:
            if force and slot.model is not None:
                await self._unloader.unload(slot)
            elif waits and slot.is_serving:
                await self._unloader.drain(slot)
            else:
                slot.check_idle()
                await self._make_away(slot)
            if slot.phase != "loaded":  # it has left; who has it loaded again by now means it
                return

    async def remove(self, name: str) -> int:
        """Unload a model and delete it from this machine; the bytes that were freed.

        Raises:
            ModelNotFound, ModelInUse: see `unload`.
            InvalidRequest: it is not ours to delete.
        """
        name = normalized(name)
        await self.refresh()
        slot = self._roster.find(name)
        model = name if slot is None else slot.order.model
        await asyncio.to_thread(plan_removal, model, self._settings.home)  # refuses before it is unloaded
        await self.unload(name)
        status = self._roster.status(name)
        freed_bytes = await asyncio.to_thread(remove, model, self._settings.home)
        if self._roster.find(name) is not None:  # a request may have had it loaded in between
            await self.unload(name, force=True)
        self._roster.drop(name)
        self._library.forget()
        await self.refresh()
        self._events.publish(ModelEvent("removed", status))
        return freed_bytes

    async def pull(self, model: str) -> None:
        """Bring a model to this machine, or up to date; shares a download or load that is under way.

        Raises:
            ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied, DoesNotFit.
            LoadStopped: an unload gave it up.
        """
        order = self._roster.meant(LoadOrder(model))
        slot = self._roster.find(order.name) or await self._roster.slot_for(order)
        if slot.is_serving or slot.phase == "unloading":
            await self._loader.download(slot, is_refresh=True)
            return
        if slot.is_away:
            slot.begin("downloading", self._run_download(slot))
        await slot.outcome()

    async def refresh(self) -> None:
        """Look at the disk for models that came or went by other hands."""
        await self._library.refresh()

    def served(self) -> tuple[LoadedModel, ...]:
        """The models that are loaded, oldest first; one whose engine has died is among them."""
        return tuple(
            slot.model
            for slot in self._roster.slots.values()
            # An engine that is being closed is not one that has died.
            if slot.model is not None and slot.leaving is None
        )

    def nameable(self) -> tuple[ModelSummary, ...]:
        """Exactly the names that a request may use now; of the disk, what `refresh` saw last."""
        return self._roster.nameable()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model that is here, on its way or in the catalog; of the disk, what `refresh` saw last."""
        return self._roster.statuses()

    def watch(self) -> AsyncGenerator[ModelEvent]:
        """Changes of status and progress from now on, until `close`."""
        return self._events.watch()

    async def close(self) -> None:
        """Give up every load and end every engine process."""
        slots = list(self._roster.slots.values())
        for slot in slots:
            if slot.work is not None:
                slot.work.cancel()
        works = [slot.work for slot in slots if slot.work is not None]
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.gather(*(self._unloader.unload(slot) for slot in slots if slot.model is not None))
        self._events.close()

    async def _acquire(self, name: str, keep_alive_s: float | None) -> ModelSlot:
        """The slot of a loaded model with a lease begun."""
        while True:
            slot = await self._roster.requested(name)
            if slot.phase == "downloading":
                raise Loading(f"'{name}' is still being downloaded. Retry after {Loading.retry_after_s} s.")
            if slot.is_dead or slot.phase == "unloading":
                await self._make_away(slot)
                continue
            if slot.is_away:
                self._start_load(slot, slot.order, is_request=True)
            # Before the load has ended, so that nobody unloads it between its end and this lease.
            slot.begin_lease(keep_alive_s)
            try:
                if slot.is_coming:
                    await slot.outcome(gives_up=False)
                if slot.is_usable:
                    return slot
            except BaseException:
                slot.end_lease()
                raise
            slot.end_lease()

    def _adopt(self, slot: ModelSlot, order: LoadOrder) -> LoadedModel:
        """Take over what an order says about a model that is loaded already."""
        assert slot.model is not None, "it is serving"
        slot.adopt(order, self._settings.keep_alive_s)
        return slot.model

    def _start_load(self, slot: ModelSlot, order: LoadOrder, *, is_request: bool) -> None:
        slot.adopt(order, self._settings.keep_alive_s)
        slot.begin("loading", self._run_load(slot, is_request=is_request))

    async def _run_load(self, slot: ModelSlot, *, is_request: bool) -> LoadedModel | OndolError:
        try:
            loading = await self._loader.load(slot, is_request=is_request)
        except OndolError as error:
            slot.move("failed", error)
            return error
        slot.model, slot.memory = loading.model, loading.memory
        slot.move("loaded")
        slot.start_idling()
        return loading.model

    async def _run_download(self, slot: ModelSlot) -> OndolError | None:
        try:
            await self._loader.download(slot, is_refresh=True)
            slot.resolved = await self._library.find(slot.order.model)
        except OndolError as error:
            slot.move("failed", error)
            return error
        slot.move("unloaded")
        return None

    async def _make_away(self, slot: ModelSlot) -> None:
        """One step towards a slot that is away: stop its work, unload it, or wait for who does."""
        if slot.is_coming:
            assert slot.work is not None, "it is coming"
            slot.work.cancel()
            await asyncio.wait({slot.work})
        elif slot.phase == "unloading" and slot.leaving is None:  # waits for its last streams
            await slot.wait_for_change()
        elif not slot.is_away:
            await self._unloader.unload(slot)
