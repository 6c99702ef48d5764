"""Server-sent events: the only module that knows sse-starlette.

Knows nothing about what an event says. Invariant: whatever ends the response — the last event, a
disconnect, a cut at shutdown — the events' generator is closed and what it held is released, also
when the generator never started.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack

import anyio
import msgspec
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from ondol.api.errors import error_body, error_response
from ondol.api.lifecycle import SHUTTING_DOWN, Lifecycle
from ondol.errors import Draining

PING_INTERVAL_S = 15
LAST_WORD_TIMEOUT_S = 1.0

DONE = b"data: [DONE]\n\n"

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def keep_streams_open_at_shutdown() -> None:
    """Switch off sse-starlette's own drain, which cuts every stream at the first signal."""
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


def event(payload: msgspec.Struct) -> bytes:
    """One event; JSON has no line breaks, so one data line holds it."""
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def comment(text: str) -> bytes:
    """One line that clients skip and people read."""
    return b": " + text.encode("utf-8") + b"\n\n"


class EventStream(EventSourceResponse):
    """A streamed answer that owns the events' generator and the resources behind it.

    A generator that was never started never runs its `finally`, so leases and counts are not left
    to it: they are in `resources`, which this response closes however it ends.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        resources: AsyncExitStack,
        lifecycle: Lifecycle,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(events, headers={**_HEADERS, **headers}, ping=PING_INTERVAL_S, sep="\n")
        self._events = events
        self._resources = resources
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until they end, the client leaves, or the daemon cuts the stream."""
        sent = _SentSoFar(send)
        async with self._resources:
            try:
                with anyio.CancelScope() as cut, self._lifecycle.cutting(cut):
                    await super().__call__(scope, receive, sent.send)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._events.aclose()
            if cut.cancelled_caught and not sent.is_complete:
                # A client that does not read must not hold up the shutdown.
                with anyio.move_on_after(LAST_WORD_TIMEOUT_S):
                    await self._say_why(scope, receive, send, has_started=sent.has_started)

    async def _say_why(self, scope: Scope, receive: Receive, send: Send, *, has_started: bool) -> None:
        error = Draining(SHUTTING_DOWN)
        if not has_started:
            await error_response(error)(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": event(error_body(error)), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _SentSoFar:
    """Remembers how far the answer got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
