"""What was seen of one request, moment by moment.

Knows nothing about servers or statistics: targets write it, figures read it. Times are seconds of
whatever clock the run uses. Invariant: `ended_s` is set for every request that was sent.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

from ondol.bench.plan import PlannedRequest
from ondol.errors import OndolError

INTERRUPTED = "interrupted"


class RequestFailed(OndolError):
    """One request got no complete answer; the message is the reason that figures count."""


@dataclass(slots=True)
class RequestTrace:
    """The record of one request, filled in while it runs.

    Attributes:
        text_times_s: arrival of each piece that held text (a piece may hold several tokens).
        num_input_tokens, num_output_tokens: as the server counts them; None if it does not tell.
        num_cached_tokens: input tokens that the server took from its prefix cache.
        failure: why there is no complete answer; None while running and after success.
        has_output: set at the first text, and at the end in any case.
    """

    request: PlannedRequest
    started_s: float
    ended_s: float | None = None
    text_times_s: list[float] = field(default_factory=list)
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    num_cached_tokens: int = 0
    finish_reason: str | None = None
    failure: str | None = None
    has_output: asyncio.Event = field(default_factory=asyncio.Event)

    def note_text(self, now_s: float) -> None:
        """A piece of text arrived."""
        self.text_times_s.append(now_s)
        self.has_output.set()

    def end(self, now_s: float) -> None:
        """The request is over, well or badly."""
        self.ended_s = now_s
        self.has_output.set()

    @property
    def ttft_s(self) -> float | None:
        """Time to first token: from sending to the first piece of text."""
        return self.text_times_s[0] - self.started_s if self.text_times_s else None

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(start, end) of each wait between two pieces of text."""
        return list(pairwise(self.text_times_s))

    @property
    def seconds_per_output_token(self) -> float | None:
        """Mean time of the tokens after the first piece; blind to how tokens were packed in pieces."""
        if not self.num_output_tokens or self.num_output_tokens < 2 or len(self.text_times_s) < 2:
            return None
        return (self.text_times_s[-1] - self.text_times_s[0]) / (self.num_output_tokens - 1)
