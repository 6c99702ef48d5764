"""Ends what nobody has used for a while.

Knows nothing about what ends. The invariant: it expires at most once for each `start`, and never after
`stop`.
"""

import asyncio
import math
import time
from collections.abc import Callable


class IdleTimer:
    """One model's; belongs to one event loop."""

    def __init__(self, on_expiry: Callable[[], object]) -> None:
        self._on_expiry = on_expiry
        self._handle: asyncio.TimerHandle | None = None
        self.expires_at: float | None = None
        """When it expires, in Unix seconds; None while it does not run."""

    def start(self, delay_s: float) -> None:
        """Expire after so many seconds, math.inf is never; a running timer begins anew."""
        self.stop()
        if not math.isinf(delay_s):
            self.expires_at = time.time() + delay_s
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def stop(self) -> None:
        """Do not expire."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self.expires_at = None

    def _expire(self) -> None:
        self._handle = self.expires_at = None
        self._on_expiry()
