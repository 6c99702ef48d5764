"""Where a constrained request stands in its grammar, and which tokens may come next.

Knows token ids and llguidance, nothing about text, scheduling or tensors. Invariant: a matcher has
taken in exactly its request's output ids, so that preemption changes nothing and a replay rebuilds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import (
    allocate_token_bitmask,
    fill_next_token_bitmask,
    fill_next_token_bitmask_par,
)
from numpy.typing import NDArray

# So many masks are filled by the time at which another thread has woken up.
FEW_ROWS = 4


class TokenMatcher:
    """One request's grammar and its state; belongs to one thread at a time.

    Args:
        matcher: at the grammar's start.
        vocab_size: tokens of the tokenizer that it was built with.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self.vocab_size = vocab_size

    @property
    def error(self) -> str | None:
        """Why the matcher can say nothing more: a limit was hit, or a token that it had not allowed."""
        if not self._matcher.is_error():
            return None
        return " ".join(self._matcher.get_error().split())

    @property
    def is_complete(self) -> bool:
        """Whether the output matches the whole grammar and nothing can follow it."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def advance(self, token_ids: list[int]) -> None:
        """Take in output tokens; sets `error` if the grammar does not allow them."""
        self._matcher.consume_tokens(token_ids)

    def probe(self) -> None:
        """Compute the first mask; a grammar that nothing can match sets `error`."""
        self._matcher.compute_bitmask()

    def fill_row(self, bits: NDArray[np.int32], row: int) -> None:
        """Fill row `row` of a bit mask [R, W]."""
        fill_next_token_bitmask(self._matcher, bits, row)

    def with_row(self, row: int) -> tuple[LLMatcher, int]:
        """The pair that llguidance's threads fill row `row` of a bit mask from."""
        return self._matcher, row


@dataclass(frozen=True, slots=True)
class RowMasks:
    """What the constrained rows of a batch may sample.

    Attributes:
        rows: R indices into the batch's logits.
        allowed: [R, W] int32, a bit for each token id, the lowest of a word first; W words hold at least the
            vocabulary. Ids that the tokenizer lacks are never allowed.
    """

    rows: list[int]
    allowed: NDArray[np.int32]


class MaskFiller:
    """Computes the masks of a step, several at a time where there are cores for it."""

    def __init__(self) -> None:
        self._executor: LLExecutor | None = None

    def fill(self, matchers: Sequence[TokenMatcher | None]) -> RowMasks | None:
        """The masks of a batch's rows; None if no row has a grammar."""
        rows = [row for row, matcher in enumerate(matchers) if matcher is not None]
        if not rows:
            return None
        present = [matcher for matcher in matchers if matcher is not None]
        allowed = allocate_token_bitmask(len(rows), present[0].vocab_size)
        if len(rows) <= FEW_ROWS:
            for place, matcher in enumerate(present):
                matcher.fill_row(allowed, place)
        else:
            self._fill_in_threads(present, allowed)
        return RowMasks(rows, allowed)

    def _fill_in_threads(self, matchers: Sequence[TokenMatcher], allowed: NDArray[np.int32]) -> None:
        if self._executor is None:
            self._executor = LLExecutor()
        pairs = [matcher.with_row(place) for place, matcher in enumerate(matchers)]
        fill_next_token_bitmask_par(self._executor, pairs, allowed)
