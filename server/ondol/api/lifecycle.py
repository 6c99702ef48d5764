"""Where the daemon stands between start and exit, and which requests are open.

Knows nothing about HTTP, signals or models: others tell it what happened and ask it who may come in.
Invariant: after `begin_drain` nobody comes in, and after `cut` nobody stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import anyio

from ondol.errors import Draining, Loading

Phase = Literal["loading", "ready", "draining"]

SHUTTING_DOWN = "The server is shutting down."


class Lifecycle:
    """The phases of one daemon; belongs to one event loop."""

    def __init__(self) -> None:
        self._phase: Phase = "loading"
        self._is_cut = False
        self._num_open = 0
        self._scopes: set[anyio.CancelScope] = set()

    @property
    def phase(self) -> Phase:
        """loading, ready or draining, in this order."""
        return self._phase

    @property
    def num_open(self) -> int:
        """Generation requests that came in and have not ended."""
        return self._num_open

    @property
    def is_cut(self) -> bool:
        """Whether open requests have been told to end at once."""
        return self._is_cut

    def mark_ready(self) -> None:
        """The model is loaded; a daemon that already drains goes on draining."""
        if self._phase == "loading":
            self._phase = "ready"

    def begin_drain(self) -> None:
        """Take no new request; open ones go on."""
        self._phase = "draining"

    def cut(self) -> None:
        """End open requests now; each tells its client why."""
        self.begin_drain()
        self._is_cut = True
        for scope in tuple(self._scopes):
            scope.cancel()

    @contextmanager
    def open_request(self) -> Iterator[None]:
        """Count one request while it is open; raises Loading or Draining instead of letting it in."""
        if self._phase == "draining":
            raise Draining(SHUTTING_DOWN)
        if self._phase == "loading":
            raise Loading(f"The model is still loading. Retry after {Loading.retry_after_s} s.")
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    @contextmanager
    def cutting(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Let `cut` cancel `scope`; whoever entered it sees `cancelled_caught` and tells the client."""
        self._scopes.add(scope)
        if self._is_cut:
            scope.cancel()
        try:
            yield
        finally:
            self._scopes.discard(scope)
