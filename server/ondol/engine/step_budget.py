"""How much one step may still compute, while it is being chosen.

Knows nothing about who is next. Invariant: what is taken fits what was left.
"""

from dataclasses import dataclass

from ondol.engine.request import Request


@dataclass(slots=True)
class StepBudget:
    """What is left of a step.

    Attributes:
        num_tokens: tokens that may still be computed.
        num_prompt_logits: rows of logits that may still be asked of prompts; a row is as wide as the
            vocabulary, so a step's are bounded.
    """

    num_tokens: int
    num_prompt_logits: int

    def share_of(self, request: Request) -> int:
        """Tokens of a request that may be computed now."""
        num_tokens = min(request.num_uncomputed_tokens, self.num_tokens)
        return min(num_tokens, self.num_prompt_logits) if request.needs_prompt_logprobs else num_tokens

    def take(self, request: Request, num_tokens: int) -> None:
        """Subtract what a request was given."""
        self.num_tokens -= num_tokens
        if request.needs_prompt_logprobs:
            self.num_prompt_logits -= num_tokens
