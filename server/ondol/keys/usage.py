"""How much of its limits each key has used, in memory.

Token buckets: a limit per minute is a bucket that holds a minute's worth and fills steadily. Knows
nothing about requests beyond their count and tokens. Invariant: a request that is let in is counted
until it ends, however it ends.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ondol.errors import KeyLimitReached
from ondol.keys.key_store import KeyLimits

MINUTE_S = 60.0
# A place becomes free when another answer ends, which nobody can foresee.
CONCURRENCY_RETRY_S = 1


@dataclass(slots=True)
class Bucket:
    """`level` may fall below 0: tokens are known only when they are spent."""

    per_minute: int
    level: float
    filled_s: float

    def refill(self, now_s: float) -> None:
        """Add what has flowed in since the last time."""
        gained = (now_s - self.filled_s) * self.per_minute / MINUTE_S
        self.level = min(float(self.per_minute), self.level + gained)
        self.filled_s = now_s

    def seconds_until(self, level: float) -> int:
        """How long until the bucket holds `level`, in whole seconds, at least 1."""
        return max(1, math.ceil((level - self.level) * MINUTE_S / self.per_minute))


@dataclass(slots=True)
class KeyUsage:
    """One key's use."""

    limits: KeyLimits
    clock: Callable[[], float] = time.monotonic
    num_open: int = 0
    _requests: Bucket | None = field(init=False, default=None)
    _tokens: Bucket | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Every bucket begins full."""
        self._requests = self._bucket(self.limits.requests_per_minute)
        self._tokens = self._bucket(self.limits.tokens_per_minute)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request while it is open; raises KeyLimitReached instead of letting it in."""
        self._check_concurrency()
        if self._tokens is not None:
            self._tokens.refill(self.clock())
            if self._tokens.level < 1:
                raise KeyLimitReached("tokens", self._tokens.per_minute, self._tokens.seconds_until(1))
        if self._requests is not None:
            self._requests.refill(self.clock())
            if self._requests.level < 1:
                raise KeyLimitReached("requests", self._requests.per_minute, self._requests.seconds_until(1))
            self._requests.level -= 1
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    def spend(self, num_tokens: int) -> None:
        """Count tokens of prompts and answers."""
        if self._tokens is not None:
            self._tokens.refill(self.clock())
            self._tokens.level -= num_tokens

    def headers(self) -> dict[str, str]:
        """OpenAI's rate-limit headers, for the limits that there are."""
        found: dict[str, str] = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                bucket.refill(self.clock())
                found[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level)))
        return found

    def _bucket(self, per_minute: int | None) -> Bucket | None:
        return None if per_minute is None else Bucket(per_minute, float(per_minute), self.clock())

    def _check_concurrency(self) -> None:
        most = self.limits.max_concurrency
        if most is not None and self.num_open >= most:
            raise KeyLimitReached("concurrent requests", most, CONCURRENCY_RETRY_S)
