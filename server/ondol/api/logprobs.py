"""Log-probabilities in OpenAI's two shapes: chat's list of tokens, and the older parallel lists.

Knows nothing about how they were computed. Invariant: the bytes of an answer's tokens, joined, are
its text's bytes; a token that is part of a character is written out in escapes, never as U+FFFD.
"""

from collections.abc import Sequence

from ondol.api.answers import ChatLogprobs, LogprobEntry, TextLogprobs, TopLogprob
from ondol.engine.messages import TokenLogprob
from ondol.text.tokenizer import TextTokenizer


def chat_logprobs(tokenizer: TextTokenizer, logprobs: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The shape of /v1/chat/completions."""
    return ChatLogprobs([_entry(tokenizer, token) for token in logprobs])


class TextLogprobsWriter:
    """The shape of /v1/completions, in as many parts as the answer comes in; one per choice."""

    def __init__(self, tokenizer: TextTokenizer, *, echoes: bool) -> None:
        """`echoes`: the text begins with the prompt, where a first word's leading space is dropped."""
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(is_continuation=not echoes)
        self._num_characters = 0

    def part(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob | None]) -> TextLogprobs:
        """The next tokens; None stands for a text's first token, which nothing makes likely."""
        tokens, offsets = [], []
        for token_id in token_ids:
            tokens.append(_legacy_text(self._tokenizer.piece_bytes(token_id)))
            offsets.append(self._num_characters)
            self._num_characters += len(self._detokenizer.push([token_id]))
        return TextLogprobs(
            tokens=tokens,
            token_logprobs=[None if token is None else token.logprob for token in logprobs],
            top_logprobs=[None if token is None else self._alternatives(token) for token in logprobs],
            text_offset=offsets,
        )

    def _alternatives(self, token: TokenLogprob) -> dict[str, float]:
        alternatives: dict[str, float] = {}
        ids = (*token.top_ids, token.token_id)
        for token_id, logprob in zip(ids, (*token.top_logprobs, token.logprob), strict=True):
            # Likeliest first: of tokens that are written alike, the likelier one counts.
            alternatives.setdefault(_legacy_text(self._tokenizer.piece_bytes(token_id)), logprob)
        return alternatives


def _entry(tokenizer: TextTokenizer, token: TokenLogprob) -> LogprobEntry:
    piece = tokenizer.piece_bytes(token.token_id)
    tops = zip(token.top_ids, token.top_logprobs, strict=True)
    return LogprobEntry(
        token=_text(piece),
        logprob=token.logprob,
        bytes=list(piece),
        top_logprobs=[_top(tokenizer.piece_bytes(token_id), logprob) for token_id, logprob in tops],
    )


def _top(piece: bytes, logprob: float) -> TopLogprob:
    return TopLogprob(token=_text(piece), logprob=logprob, bytes=list(piece))


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", errors="backslashreplace")


def _legacy_text(piece: bytes) -> str:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{value:02x}" for value in piece)
