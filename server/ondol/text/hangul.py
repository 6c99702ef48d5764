"""What Hangul costs in tokens: how many each syllable takes part in.

Knows nothing about tokenizers; it is given the bytes that each token stands for. Invariant: a syllable
written as conjoining jamo counts as the one syllable that it is read as.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

SYLLABLE = re.compile("[가-힣]|[\u1100-\u115f][\u1160-\u11a7][\u11a8-\u11ff]?")


@dataclass(frozen=True, slots=True)
class SyllableTokens:
    """One syllable of the text, composed, and in how many tokens its bytes lie."""

    syllable: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class HangulTokens:
    """The syllables in their order; `num_tokens` hold a byte of at least one of them."""

    syllables: tuple[SyllableTokens, ...]
    num_tokens: int

    @property
    def tokens_per_syllable(self) -> float | None:
        """The mean; below 1 where tokens hold whole words. None without Hangul."""
        return self.num_tokens / len(self.syllables) if self.syllables else None


def hangul_tokens(token_bytes: Sequence[bytes]) -> HangulTokens:
    """Count the syllables of the text that these tokens spell; ill-formed bytes belong to none."""
    owners = [index for index, part in enumerate(token_bytes) for _ in part]
    # Each byte that is no UTF-8 becomes one surrogate, so that offsets stay countable.
    text = b"".join(token_bytes).decode("utf-8", errors="surrogateescape")
    starts = [0]
    for character in text:
        starts.append(starts[-1] + len(character.encode("utf-8", errors="surrogateescape")))
    syllables: list[SyllableTokens] = []
    touched: set[int] = set()
    for match in SYLLABLE.finditer(text):
        tokens = set(owners[starts[match.start()] : starts[match.end()]])
        touched |= tokens
        syllables.append(SyllableTokens(unicodedata.normalize("NFC", match[0]), len(tokens)))
    return HangulTokens(tuple(syllables), len(touched))
