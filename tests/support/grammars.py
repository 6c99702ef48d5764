"""Whether a text matches a grammar, tried byte by byte without a model.

Knows nothing about who wrote the grammar. Invariant: a text matches as a whole or not at all.
"""

from functools import cache

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    """A vocabulary of all bytes and an end token, in the form that llguidance reads."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")

    def __call__(self, text):
        return list(text)


@cache
def _tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Bytes()), slices=[])


def allows(grammar: str, text: str) -> bool:
    """Whether a whole text matches."""
    matcher = LLMatcher(_tokenizer(), grammar, log_level=0)
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()
