"""Work that goes on after its answer: loads and downloads that clients start and then watch.

Knows nothing about what the work is. Invariant: a failure is raised while its request still waits,
and logged afterwards; nothing outlives the daemon's cut.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio

from ondol.api.lifecycle import Lifecycle
from ondol.errors import OndolError

logger = logging.getLogger(__name__)

# What fails by then, a wrong name above all, fails in the answer.
QUICK_FAILURE_S = 0.3


class Background:
    """The work in progress of one daemon; belongs to one event loop."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        # The event loop alone would let go of them.
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Begin `work`, called `name` in the log, and let it go on; raises its error if it fails at once."""
        task = asyncio.create_task(self._run(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=QUICK_FAILURE_S)
        if not done:
            task.add_done_callback(_log_failure)
        elif not task.cancelled():
            task.result()

    async def _run(self, work: Callable[[], Awaitable[object]]) -> None:
        with anyio.CancelScope() as scope, self._lifecycle.cutting(scope):
            await work()


def _log_failure(task: asyncio.Task[None]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, OndolError):
        logger.warning("%s failed: %s", task.get_name(), error)
    elif error is not None:
        logger.error("%s failed", task.get_name(), exc_info=error)
