"""For which numbers of rows and which contexts there is a graph.

Pure arithmetic. Invariant: every step within the engine's bounds has a size that is at least as large, and
sizes grow so that padding costs little where steps are common.
"""

from bisect import bisect_left
from typing import NamedTuple

# Up to here a step of any number of rows wastes at most seven.
FINE_ROWS = 256
# The bound on the contexts doubles from here: a bound costs attention programs that find nothing to do.
FIRST_CONTEXT = 1024
# Rows times contexts beyond which nothing is recorded: attention's workspace grows with them, 136 MB here for
# 32 heads of 128.
MAX_POSITIONS = 2**21


class StepSize(NamedTuple):
    """Rows, padding included, and tokens that the longest of them may attend to."""

    num_rows: int
    max_context_len: int


class StepSizes:
    """The sizes of one engine.

    Args:
        max_num_seqs: requests in a step, at most.
        max_model_len: tokens of one request, at most.
    """

    def __init__(self, max_num_seqs: int, max_model_len: int) -> None:
        steps: tuple[int, ...] = (1, 2, 4, *range(8, FINE_ROWS, 8), *range(FINE_ROWS, max_num_seqs + 16, 16))
        self._rows = steps[: bisect_left(steps, max_num_seqs) + 1]
        contexts = [min(FIRST_CONTEXT, max_model_len)]
        while contexts[-1] < max_model_len:
            contexts.append(min(2 * contexts[-1], max_model_len))
        self._contexts = tuple(contexts)

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest request."""
        return self._contexts[-1]

    @property
    def max_num_rows(self) -> int:
        """Rows of the largest size."""
        return self._rows[-1]

    def of(self, num_rows: int, context_len: int) -> StepSize:
        """The smallest size that holds `num_rows` requests of at most `context_len` tokens."""
        return StepSize(
            self._rows[bisect_left(self._rows, num_rows)],
            self._contexts[bisect_left(self._contexts, context_len)],
        )

    def recorded(self) -> list[StepSize]:
        """The sizes that may be recorded, in the order of recording.

        First the one that takes most memory, so that all others fit into that; then short contexts before
        long ones, many rows before few.
        """
        sizes = [
            size
            for context in self._contexts
            for rows in reversed(self._rows)
            if can_be_recorded(size := StepSize(rows, context))
        ]
        largest = max(sizes, key=lambda size: size.num_rows * size.max_context_len)
        return [largest, *(size for size in sizes if size != largest)]


def can_be_recorded(size: StepSize) -> bool:
    """Whether a graph of this size takes a bounded amount of memory."""
    return size.num_rows * size.max_context_len <= MAX_POSITIONS
