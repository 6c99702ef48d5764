"""Everything that the manager knows about one name, and the way that its status changes.

Knows nothing about why it changes. The invariant: every change of status is published, and wakes those
who wait for one.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

from ondol.errors import EngineFailed, LoadStopped, ModelInUse, OndolError
from ondol.model_manager.idle_timer import IdleTimer
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.loaded_model import LoadedModel
from ondol.model_manager.model_events import ModelEvent, ModelEvents
from ondol.model_manager.model_status import (
    MemoryUse,
    ModelStatus,
    ModelSummary,
    Phase,
    StageProgress,
)
from ondol.model_manager.resolve import ResolvedModel

FLOAT_KINDS = ("float32", "bfloat16", "float16")

# What comes of work: a model, an expected failure, or None of a download.
Outcome = LoadedModel | OndolError | None


class ModelSlot:
    """One name that the daemon has been told of; belongs to one event loop.

    Attributes:
        created: when the daemon was told of it, in Unix seconds.
        order: how it is loaded, also the next time.
        phase: where it stands; see `ModelStatus`. Changed by `move` alone.
        resolved: its folder, once it is known.
        model, memory: while it is loaded or being unloaded.
        num_leases: who uses it, or waits for its load in order to use it.
        keep_alive_s: how long it stays when nobody does.
        last_used_s: on the monotonic clock.
        default_keep_alive_s: the same, where a request does not say otherwise.
        work: the task that downloads or loads it, and comes to the model or to why there is none.
        leaving: the task that unloads it.
        num_orders: callers that wait for `work` and would give it up.
    """

    def __init__(
        self,
        order: LoadOrder,
        keep_alive_s: float,
        events: ModelEvents,
        on_idle: Callable[["ModelSlot"], object],
    ) -> None:
        self.name = order.name
        self.created = int(time.time())
        self.order = order
        self.phase: Phase = "unloaded"
        self.progress: StageProgress | None = None
        self.error: OndolError | None = None
        self.resolved: ResolvedModel | None = None
        self.model: LoadedModel | None = None
        self.memory: MemoryUse | None = None
        self.num_leases = 0
        self.num_orders = 0
        self.keep_alive_s = self.default_keep_alive_s = keep_alive_s
        self.last_used_s = time.monotonic()
        self.work: asyncio.Task[Outcome] | None = None
        self.leaving: asyncio.Task[None] | None = None
        self.timer = IdleTimer(lambda: on_idle(self))
        self._events = events
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_serving(self) -> bool:
        """Loaded, with an engine that lives."""
        return self.phase == "loaded" and self.model is not None and self.model.engine.is_alive

    @property
    def is_usable(self) -> bool:
        """Whether a lease that has begun can be served: also by a model that is to leave afterwards."""
        return self.model is not None and self.leaving is None and self.model.engine.is_alive

    @property
    def is_dead(self) -> bool:
        """Loaded, with an engine that has died."""
        return self.phase == "loaded" and not self.is_serving

    @property
    def is_away(self) -> bool:
        """Not loaded, nor on its way."""
        return self.phase in ("unloaded", "failed")

    @property
    def is_coming(self) -> bool:
        """On its way to be loaded, or to this machine."""
        return self.phase in ("downloading", "loading")

    def begin(self, phase: Phase, work: Coroutine[None, None, Outcome]) -> None:
        """Start what brings the model here; given up, it leaves the slot unloaded."""
        self.move(phase)
        self.work = asyncio.create_task(work, name=f"{phase} {self.name}")
        # Not by the work itself: one that is cancelled before its first step does nothing at all.
        self.work.add_done_callback(self._settle)

    def _settle(self, work: "asyncio.Task[Outcome]") -> None:
        if work is self.work and self.is_coming:
            self.move("unloaded")

    def move(self, phase: Phase, error: OndolError | None = None) -> None:
        """Change the status, or its error, and tell everybody."""
        self.phase, self.error, self.progress = phase, error, None
        self._events.publish(ModelEvent("status", self.status()))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def report(self, progress: StageProgress) -> None:
        """Tell how far the present status is."""
        self.progress = progress
        self._events.publish(ModelEvent("progress", self.status()))

    async def wait_for_change(self) -> None:
        """Return at the next change of status."""
        await self._changed.wait()

    async def outcome(self, *, gives_up: bool = True) -> LoadedModel | None:
        """What comes of `work`; None if it was only a download.

        Args:
            gives_up: when this caller is cancelled and nobody else waits, the work ends too.

        Raises:
            OndolError: what the work ended with; LoadStopped if it was given up.
        """
        work = self.work
        assert work is not None, "it is coming"
        self.num_orders += gives_up
        try:
            # Not awaited itself: a cancelled waiter must not take it along, nor a cancelled work the waiter.
            await asyncio.wait({work})
        finally:
            self.num_orders -= gives_up
            if gives_up and not work.done() and self.num_orders == 0 and self.num_leases == 0:
                work.cancel()
        if work.cancelled():
            raise LoadStopped(self.name)
        outcome = work.result()
        if isinstance(outcome, OndolError):
            raise outcome
        return outcome

    def begin_leaving(self) -> None:
        """Take no new lease from here on; those that are held go on."""
        self.timer.stop()
        self.move("unloading")

    def stay(self) -> None:
        """Undo `begin_leaving`, unless the model is being unloaded by now or is gone."""
        if self.phase == "unloading" and self.leaving is None:
            self.move("loaded")
            self.start_idling()

    async def wait_until_idle(self) -> None:
        """Return once nobody holds a lease."""
        await self._idle.wait()

    def check_idle(self) -> None:
        """Raise ModelInUse while requests are answered."""
        if self.is_serving and self.num_leases:
            raise ModelInUse(self.name, self.num_leases)

    def begin_lease(self, keep_alive_s: float | None) -> None:
        """Somebody uses it from now on; `keep_alive_s` holds until the next one begins."""
        self.num_leases += 1
        self.keep_alive_s = self.default_keep_alive_s if keep_alive_s is None else keep_alive_s
        self.last_used_s = time.monotonic()
        self.timer.stop()
        self._idle.clear()

    def end_lease(self) -> None:
        """Somebody has done with it."""
        self.num_leases -= 1
        self.last_used_s = time.monotonic()
        if self.num_leases == 0:
            self._idle.set()
            self.start_idling()

    def adopt(self, order: LoadOrder, default_keep_alive_s: float) -> None:
        """Follow an order from now on; a model that was pinned once stays so."""
        self.order = replace(order, is_pinned=order.is_pinned or self.order.is_pinned)
        keep_alive_s = default_keep_alive_s if order.keep_alive_s is None else order.keep_alive_s
        self.keep_alive_s = self.default_keep_alive_s = keep_alive_s
        self.timer.stop()
        self.start_idling()

    def start_idling(self) -> None:
        """Begin to count the time without use, if that has an end."""
        if self.phase == "loaded" and self.num_leases == 0 and not self.order.is_pinned:
            self.timer.start(self.keep_alive_s)

    def summary(self) -> ModelSummary:
        """What can be told to whoever may name it."""
        source = {} if self.resolved is None else self.resolved.source
        if self.model is None:
            return ModelSummary(self.name, self.created, None, source)
        return ModelSummary(self.name, self.model.created, self.model.max_model_len, source)

    def status(self) -> ModelStatus:
        """What can be told about it now."""
        status = ModelStatus(
            id=self.name,
            status=self.phase,
            progress=self.progress,
            error=self.error,
            source={} if self.resolved is None else self.resolved.source,
            path=None if self.resolved is None else str(self.resolved.path),
            num_streams=self.num_leases if self.model is not None else 0,
            expires_at=self.timer.expires_at,
            is_pinned=self.order.is_pinned,
        )
        if self.model is None:
            return status
        ready = self.model.engine.ready
        kinds = [stored.kind for stored in ready.weights.stored if stored.kind not in FLOAT_KINDS]
        status = replace(
            status,
            memory=self.memory,
            quantization=kinds[0] if kinds else None,
            device=ready.device,
            max_model_len=ready.max_model_len,
            dtype=ready.dtype,
            kv_cache_dtype=ready.kv_cache_dtype,
            deterministic=ready.deterministic,
        )
        if self.is_dead:
            return replace(
                status, status="failed", error=EngineFailed(self.model.engine.failure or "it died")
            )
        return status
