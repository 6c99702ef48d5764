"""Ends a text at the first stop string, wherever token boundaries fall.

Text goes in as deltas and comes out as deltas. Only what may still turn out to be the start of a
stop string is held back. Knows nothing about tokens; the caller ends the generation.

Invariant: what comes out depends on the whole text alone, not on how it was cut into deltas. The
stop string that completes first wins; of several that complete at the same character, the longest,
which starts earliest. It is not part of the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopResult:
    """Text released by one push, and the stop string that ended it, if any."""

    text: str
    stopped: str | None = None


class StopStringMatcher:
    """Costs O(1) amortized per character and stop string; holds back less than the longest stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops` are non-empty strings; with none of them, text passes straight through."""
        self._prefixes = [PrefixMatcher(stop) for stop in stops]
        self._held = ""
        self._stopped: str | None = None

    def push(self, text: str) -> StopResult:
        """After a stop, everything further is swallowed."""
        if not self._prefixes or self._stopped is not None:
            return StopResult("" if self._stopped is not None else text, self._stopped)
        seen = self._held + text
        for index, character in enumerate(text, start=len(self._held)):
            completed = [prefix.stop for prefix in self._prefixes if prefix.advance(character)]
            if completed:
                self._stopped = max(completed, key=len)
                self._held = ""
                return StopResult(seen[: index + 1 - len(self._stopped)], self._stopped)
        num_held = max(prefix.num_matched for prefix in self._prefixes)
        num_released = len(seen) - num_held
        self._held = seen[num_released:]
        return StopResult(seen[:num_released])

    def flush(self) -> str:
        """The text ended without a stop string: releases what was held back."""
        held, self._held = self._held, ""
        return held


class PrefixMatcher:
    """Knuth-Morris-Pratt: how much of one stop string the text seen so far ends with.

    Source: Knuth, Morris, Pratt, Fast Pattern Matching in Strings, SIAM J. Comput. 6 (1977).
    """

    def __init__(self, stop: str) -> None:
        assert stop, "the front door refuses empty stop strings"
        self.stop = stop
        self.num_matched = 0
        self._borders = _border_lengths(stop)

    def advance(self, character: str) -> bool:
        """True where this character completes the stop string; not to be called again after that."""
        while self.num_matched and self.stop[self.num_matched] != character:
            self.num_matched = self._borders[self.num_matched - 1]
        self.num_matched += self.stop[self.num_matched] == character
        return self.num_matched == len(self.stop)


def _border_lengths(pattern: str) -> list[int]:
    """For each prefix of `pattern`, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(pattern)
    num_matched = 0
    for index in range(1, len(pattern)):
        while num_matched and pattern[index] != pattern[num_matched]:
            num_matched = borders[num_matched - 1]
        num_matched += pattern[index] == pattern[num_matched]
        borders[index] = num_matched
    return borders
