"""Waits for work whose answer is sent whole, as long as anybody wants it.

Knows nothing about the work. Invariant: the work is cancelled when its client leaves and when the
daemon cuts what is open.
"""

from collections.abc import Awaitable
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request

from ondol.api.disconnect import until_disconnect
from ondol.api.lifecycle import SHUTTING_DOWN, Lifecycle
from ondol.errors import Draining

Result = TypeVar("Result")


async def while_wanted(request: Request, lifecycle: Lifecycle, work: Awaitable[Result]) -> Result:
    """The work's result; the request's body must have been read.

    Raises:
        ClientDisconnect: the client has left.
        Draining: the daemon ends.
    """
    with anyio.CancelScope() as scope, lifecycle.cutting(scope):
        return await until_disconnect(request, scope, work)
    if lifecycle.is_cut:
        raise Draining(SHUTTING_DOWN)
    raise ClientDisconnect
