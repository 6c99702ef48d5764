"""Tells watchers what happens to models.

Knows nothing about why. The invariant: a watcher's backlog holds at most one event for each model, the
latest; so a slow watcher misses what lay between, never the end.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from ondol.model_manager.model_status import ModelStatus

EventKind = Literal["status", "progress", "removed"]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something happened to one model.

    Attributes:
        kind: "status" (another status, another error), "progress" (of the same), or "removed" (from this
            machine; `status` is what was last known).
        status: the model after it.
    """

    kind: EventKind
    status: ModelStatus


class _Watcher:
    """The events that one watcher has not read yet, oldest model first.

    Attributes:
        is_over: it was closed by its reader, or read to the end.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._pending: dict[str, ModelEvent] = {}
        self._wake = asyncio.Event()
        self._is_closed = False

    def push(self, event: ModelEvent) -> None:
        """Add an event; it takes the place of an older one of the same model."""
        before = self._pending.pop(event.status.id, None)
        # A change of status that nobody has read yet is not hidden by the progress after it.
        is_news = before is not None and before.kind == "status" and event.kind == "progress"
        self._pending[event.status.id] = ModelEvent("status", event.status) if is_news else event
        self._wake.set()

    def close(self) -> None:
        """Let it end after what is pending."""
        self._is_closed = True
        self._wake.set()

    async def events(self) -> AsyncGenerator[ModelEvent]:
        """Everything that was pushed, as it comes."""
        try:
            while True:
                while self._pending:
                    yield self._pending.pop(next(iter(self._pending)))
                if self._is_closed:
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            self.is_over = True


class ModelEvents:
    """All watchers of one manager; belongs to one event loop."""

    def __init__(self) -> None:
        # Weak, because a generator that was never started runs no `finally`: it forgets itself.
        self._watchers: weakref.WeakSet[_Watcher] = weakref.WeakSet()
        self._is_closed = False

    @property
    def num_watchers(self) -> int:
        """Watches that are still held by somebody."""
        # One that has ended may still hang in a reference cycle.
        return sum(not watcher.is_over for watcher in self._watchers)

    def publish(self, event: ModelEvent) -> None:
        """Tell every watcher; never waits."""
        for watcher in self._watchers:
            watcher.push(event)

    def watch(self) -> AsyncGenerator[ModelEvent]:
        """Events from this call on, until `close`; closing the generator ends the watch."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        if self._is_closed:
            watcher.close()
        return watcher.events()

    def close(self) -> None:
        """End every watch, after what is pending."""
        self._is_closed = True
        for watcher in self._watchers:
            watcher.close()
