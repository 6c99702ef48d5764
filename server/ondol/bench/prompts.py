"""Writes prompts of a wanted length in tokens, without knowing the server's tokenizer.

The server says how many tokens two probe texts have; the line through them turns tokens into
words. Invariant: equal keys and lengths give equal texts.
"""

import random
from dataclasses import dataclass

from ondol.bench.plan import PlannedRequest

# Everyday words, each one token with its leading space in most vocabularies.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea kid body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education"
)


def words_for(key: str, num_words: int) -> str:
    """`num_words` words that depend on `key` alone."""
    return " ".join(random.Random(key).choices(_WORDS.split(), k=num_words))


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """Turns wanted tokens into words.

    Attributes:
        tokens_per_word: slope between the two probes.
        overhead_tokens: what the chat template and the start token add to every prompt.
    """

    tokens_per_word: float = 1.0
    overhead_tokens: float = 0.0

    @classmethod
    def calibrated(cls, short: tuple[int, int], long: tuple[int, int]) -> "PromptWriter":
        """From two probes as (words, tokens); the second has more words."""
        tokens_per_word = max(0.1, (long[1] - short[1]) / (long[0] - short[0]))
        return cls(tokens_per_word, max(0.0, short[1] - short[0] * tokens_per_word))

    def write(self, request: PlannedRequest) -> str:
        """The prompt of a request, close to its wanted length; always at least one word of its own."""
        prefix = words_for(request.prefix_key, self._num_words(request.num_prefix_tokens))
        own_tokens = request.num_input_tokens - request.num_prefix_tokens - self.overhead_tokens
        own = words_for(request.key, max(1, self._num_words(own_tokens)))
        return f"{prefix} {own}" if prefix else own

    def _num_words(self, num_tokens: float) -> int:
        return max(0, round(num_tokens / self.tokens_per_word))
