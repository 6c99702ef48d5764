"""What one step computes: which requests, and how many tokens of each.

Plain data between the scheduler, which fills it, and the model runner, which turns it into tensors.
"""

from dataclasses import dataclass

from ondol.engine.request import Request


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """Tokens [start, start + num_tokens) of a request, all known; `start` tokens are in the cache."""

    request: Request
    start: int
    num_tokens: int

    @property
    def stop(self) -> int:
        """End of the computed range; also the context length of its last token."""
        return self.start + self.num_tokens

    @property
    def samples(self) -> bool:
        """Whether the last computed token is the last known one, so that a new one is sampled."""
        return self.stop == self.request.num_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """The flat ragged batch of one step; decodes come first."""

    scheduled: tuple[ScheduledRequest, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(item.num_tokens for item in self.scheduled)

    def sampling(self) -> tuple[ScheduledRequest, ...]:
        """The entries that get a new token, in batch order."""
        return tuple(item for item in self.scheduled if item.samples)
