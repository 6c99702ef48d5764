"""What one step computes: which requests, and how many tokens of each.

Plain data between the scheduler, which fills it, and the model runner, which turns it into tensors. The
invariant: a batch says the same when its result comes as when it was launched, whatever became of its
requests in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ondol.engine.messages import TokenLogprob
from ondol.engine.request import Request


class ScheduledRequest(msgspec.Struct, frozen=True):
    """Tokens [start, start + num_tokens) of a request; `start` tokens are in the cache by then.

    Attributes:
        completes: whether the last computed token is the last that there is. Then that one may be pending:
            sampled by the step before, and known to the device alone.
        samples: whether a new token is sampled: it completes, and the request wants one.
    """

    request: Request
    start: int
    num_tokens: int
    completes: bool
    samples: bool

    @property
    def stop(self) -> int:
        """End of the computed range; also the context length of its last token."""
        return self.start + self.num_tokens

    def prompt_logprob_positions(self) -> range:
        """Computed positions whose logits tell how likely the prompt's next token was, and are wanted."""
        known = self.request.prompt_logprobs
        if known is None:
            return range(0)
        return range(max(self.start, len(known) - 1), min(self.stop, self.request.num_prompt_tokens - 1))


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
        return tuple([item for item in self.scheduled if item.samples])


@dataclass(frozen=True, slots=True)
class StepResult:
    """What computing a batch gave.

    Attributes:
        token_ids: one sampled id per entry of `Batch.sampling()`; None where there is an error.
        errors: reasons by request id; each ends its request alone.
        logprobs: of the sampled tokens, by request id, where asked for.
        prompt_logprobs: of `ScheduledRequest.prompt_logprob_positions`, by request id, in order.
    """

    token_ids: list[int | None]
    errors: Mapping[str, str] = field(default_factory=dict)
    logprobs: Mapping[str, TokenLogprob] = field(default_factory=dict)
    prompt_logprobs: Mapping[str, list[TokenLogprob]] = field(default_factory=dict)
