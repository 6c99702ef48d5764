"""Token ids to text, a few at a time, without ever breaking a character.

Joins the bytes of tokens and decodes them as incremental UTF-8: bytes of a character still in the
making are held until it is whole, and ill-formed bytes become U+FFFD as soon as no continuation can
save them. Knows nothing about stop strings or requests; one instance serves one output.

Invariant: push(a) + push(b) + flush() does not depend on where a ends and b begins, and is the full
decode of a + b.
"""

import codecs
from collections.abc import Mapping, Sequence

from ondol.text.token_bytes import TokenBytes

Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """Costs O(new tokens) a push and holds at most three bytes."""

    def __init__(
        self,
        token_bytes: TokenBytes,
        *,
        is_continuation: bool = False,
        shown: Mapping[int, bytes] | None = None,
    ) -> None:
        """Begin a text.

        Args:
            token_bytes: the tokenizer's.
            is_continuation: keeps the first word's space, for the text goes on where a prompt ended.
            shown: special tokens that belong to this text, and how they are written.
        """
        self._token_bytes = token_bytes
        self._shown = shown or {}
        self._utf8 = Utf8Decoder(errors="replace")
        self._num_leading_spaces = 0 if is_continuation else token_bytes.num_leading_spaces
        self._is_first_token = bool(token_bytes.first_token_bytes) and not is_continuation

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these ids complete; "" while a character is still in the making."""
        chunks = [self._shown.get(token_id) or self._token_bytes[token_id] for token_id in token_ids]
        if self._is_first_token:
            self._use_first_token_bytes(token_ids, chunks)
        data = b"".join(chunks)
        if self._num_leading_spaces and data:
            data = self._drop_leading_spaces(data)
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What an unfinished character leaves: U+FFFD, or "" if the text ended on a whole one."""
        return self._utf8.decode(b"", final=True)

    def _use_first_token_bytes(self, token_ids: Sequence[int], chunks: list[bytes]) -> None:
        for index, chunk in enumerate(chunks):
            if chunk:
                chunks[index] = self._token_bytes.first_token_bytes.get(token_ids[index], chunk)
                self._is_first_token = False
                return

    def _drop_leading_spaces(self, data: bytes) -> bytes:
        num_spaces = len(data) - len(data.lstrip(b" "))
        num_dropped = min(num_spaces, self._num_leading_spaces)
        # Anything but a space ends the search for good.
        self._num_leading_spaces = self._num_leading_spaces - num_dropped if num_spaces == len(data) else 0
        return data[num_dropped:]
