"""Which tokens a request holds, and how often: what penalties read.

Knows ids, nothing about what they cost. Invariant: a token is counted once, when it is first seen, so that a
step costs what is new, however long the request is.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FIRST_CAPACITY = 64


class TokenCounts:
    """Counts of the tokens of a sequence that only grows.

    Args:
        start: where in the sequence counting begins.
    """

    def __init__(self, start: int) -> None:
        self._num_read = start
        self._places: dict[int, int] = {}
        self._ids = np.zeros(FIRST_CAPACITY, dtype=np.int64)
        self._counts = np.zeros(FIRST_CAPACITY, dtype=np.float32)

    @property
    def ids(self) -> NDArray[np.int64]:
        """[N] the different tokens; a view that holds until more are counted."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """[N] how often each of `ids` was there, likewise."""
        return self._counts[: len(self._places)]

    def catch_up(self, token_ids: Sequence[int]) -> None:
        """Count what the sequence has grown by."""
        if len(token_ids) == self._num_read:
            return
        for token_id, count in Counter(token_ids[self._num_read :]).items():
            place = self._places.setdefault(token_id, len(self._places))
            if place == len(self._ids):
                self._grow()
            self._ids[place] = token_id
            self._counts[place] += count
        self._num_read = len(token_ids)

    def _grow(self) -> None:
        self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
        self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
