"""All names that a daemon knows: those that it has been told of, and those that lie on this machine.

Knows nothing about how a status changes. The invariant: what `nameable` lists and what `requested` takes are
the same.
"""

from collections.abc import Callable
from dataclasses import replace

from ondol.config import ManagerSettings
from ondol.errors import ModelNotFound, Unloading
from ondol.model_manager.library import Library
from ondol.model_manager.load_order import LoadOrder, normalized
from ondol.model_manager.model_events import ModelEvents
from ondol.model_manager.model_slot import ModelSlot
from ondol.model_manager.model_status import ModelStatus, ModelSummary


class Roster:
    """The slots of one daemon beside its library.

    Args:
        settings: who may be loaded on request.
        library: what lies on this machine.
        events: hears of every change.
        on_idle: called with a slot that nobody has used for as long as it stays.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        library: Library,
        events: ModelEvents,
        on_idle: Callable[[ModelSlot], object],
    ) -> None:
        self._settings = settings
        self._library = library
        self._events = events
        self._on_idle = on_idle
        self.slots: dict[str, ModelSlot] = {}

    def find(self, name: str) -> ModelSlot | None:
        """The slot of this name, if the daemon has been told of it."""
        return self.slots.get(name)

    def drop(self, name: str) -> None:
        """Forget a name."""
        self.slots.pop(name, None)

    def meant(self, order: LoadOrder) -> LoadOrder:
        """The order by what a name stands for: a model that was served from a folder goes by its name too."""
        slot = self.slots.get(order.name)
        if slot is None or normalized(order.model) != slot.name:
            return order
        return replace(order, model=slot.order.model, served_name=slot.name)

    async def slot_for(self, order: LoadOrder) -> ModelSlot:
        """The order's slot.

        Raises:
            ModelNotFound, ModelRefused: there is no such model; before anything else is done.
        """
        found = await self._library.find(order.model)
        if found is None and not order.allow_download:
            raise ModelNotFound(order.model, tuple(self._library.models))
        return self.slots.get(order.name) or self._add(order)

    async def requested(self, name: str) -> ModelSlot:
        """The slot that a request means.

        Raises:
            ModelNotFound: carries the names that it may use.
            Unloading: it is leaving, and a request may not have it loaded again.
        """
        slot = self.slots.get(name)
        if slot is not None and not slot.is_away:
            if slot.phase == "unloading" and not self._may_load_on_request:
                raise Unloading(name)
            return slot
        if self._may_load_on_request:
            if slot is not None and slot.resolved is not None:
                return slot
            await self._library.refresh()
            local = self._library.models.get(name)
            if local is not None:
                order = LoadOrder(name, allow_download=False)
                return self._of_folder(str(local.path)) or self.slots.get(name) or self._add(order)
        raise ModelNotFound(name, tuple(summary.name for summary in self.nameable()))

    def nameable(self) -> tuple[ModelSummary, ...]:
        """Exactly the names that a request may use now."""
        may_load = self._may_load_on_request
        summaries = {
            slot.name: slot.summary()
            for slot in self.slots.values()
            if not slot.is_away or (may_load and slot.resolved is not None)
        }
        if may_load:
            for local in self._library.models.values():
                summaries.setdefault(local.name, ModelSummary(local.name, local.created, None, local.source))
        return tuple(summaries.values())

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model that is here, on its way, or known to the catalog."""
        known = {name: slot.status() for name, slot in self.slots.items()}
        paths = {status.path for status in known.values()}
        for local in self._library.models.values():
            # The same folder under another name is no other model.
            if local.name not in known and str(local.path) not in paths:
                known[local.name] = self.status(local.name)
        for name in self._library.elsewhere:
            if name not in known:
                known[name] = self.status(name)
        return tuple(known.values())

    def status(self, name: str) -> ModelStatus:
        """One model's; raises ModelNotFound."""
        slot = self.slots.get(name)
        if slot is not None:
            return slot.status()
        local = self._library.models.get(name)
        if local is not None:
            return ModelStatus(name, "unloaded", source=local.source, path=str(local.path))
        origin = self._library.elsewhere.get(name)
        if origin is not None:
            return ModelStatus(name, "unloaded", source=origin)
        raise ModelNotFound(name, tuple(dict.fromkeys((*self.slots, *self._library.models))))

    @property
    def _may_load_on_request(self) -> bool:
        """Pinned models that fill all places leave none for what requests name."""
        num_pinned = sum(
            slot.order.is_pinned and not slot.is_away and slot.phase != "unloading"
            for slot in self.slots.values()
        )
        return self._settings.load_on_request and num_pinned < self._settings.max_loaded_models

    def _of_folder(self, path: str) -> ModelSlot | None:
        """A model that is loaded from this folder under another name."""
        for slot in self.slots.values():
            if not slot.is_away and slot.resolved is not None and str(slot.resolved.path) == path:
                return slot
        return None

    def _add(self, order: LoadOrder) -> ModelSlot:
        slot = ModelSlot(order, self._settings.keep_alive_s, self._events, self._on_idle)
        self.slots[slot.name] = slot
        return slot
