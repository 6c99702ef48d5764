"""Ends the work for an answer that nobody waits for any more.

A server does not cancel a route when its client leaves: a stream notices when it sends, an answer
that is collected first needs this watch. Knows nothing about the work.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import anyio
from starlette.requests import Request

Result = TypeVar("Result")


async def until_disconnect(request: Request, scope: anyio.CancelScope, work: Awaitable[Result]) -> Result:
    """The work's result; `scope`, which the caller has entered, is cancelled when the client leaves.

    The request's body must have been read: only then does the next message mean a disconnect.
    """
    watch = asyncio.create_task(_cancel_on_disconnect(request, scope))
    try:
        return await work
    finally:
        watch.cancel()


async def _cancel_on_disconnect(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
