"""What each token id contributes to the visible text, as bytes.

Read once from a tokenizer's own vocabulary and decoder, so that streaming never calls into the
tokenizer again. Bytes, not strings: a token may hold a third of a Hangul syllable, and only bytes
can be concatenated without loss (docs/adr/0003-detokenize-bytes.md). Knows nothing about requests.

Decoders read: ByteLevel (GPT-2, Qwen2, Llama-3, SmolLM2); any in-order part of Replace, ByteFallback,
Fuse, Strip (Llama-2, Mistral, Gemma); Metaspace. Others, such as WordPiece or BPEDecoder, rewrite
text by its neighbours; chat models do not use them and they are refused by name.

Invariant: the bytes of an id sequence are the concatenation of the ids' bytes, except for the
spaces that sentencepiece puts in front of the first word.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

from ondol.errors import ModelRefused

PieceToBytes = Callable[[str], bytes]

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
SENTENCEPIECE_DECODER_ORDER = ("Replace", "ByteFallback", "Fuse", "Strip")


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """id -> bytes of visible text; b"" for special tokens and for ids without a piece.

    Attributes:
        table: bytes by id, for ids 0 .. highest id of the vocabulary.
        num_leading_spaces: most spaces dropped from the front of the whole text (Llama's Strip).
        first_token_bytes: ids whose bytes differ where they are a text's first token (Metaspace).
    """

    table: tuple[bytes, ...]
    num_leading_spaces: int = 0
    first_token_bytes: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenBytes":
        """Raises ModelRefused for a decoder that does not map pieces to bytes one by one."""
        decoder = _decoder_spec(tokenizer)
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        kinds = tuple(step["type"] for step in steps)
        if kinds == ("ByteLevel",):
            return cls(_piece_table(tokenizer, _byte_level_piece(_byte_level_alphabet())))
        if kinds == ("Metaspace",):
            return _metaspace_token_bytes(tokenizer, steps[0])
        if _is_sentencepiece_sequence(kinds):
            num_leading_spaces = _leading_spaces(steps[-1]) if kinds[-1] == "Strip" else 0
            return cls(_piece_table(tokenizer, _sentencepiece_piece(steps)), num_leading_spaces)
        raise _refused(", ".join(kinds))

    def __getitem__(self, token_id: int) -> bytes:
        return self.table[token_id] if 0 <= token_id < len(self.table) else b""

    def __len__(self) -> int:
        return len(self.table)


def _refused(decoder: str) -> ModelRefused:
    return ModelRefused(f"The tokenizer's decoder ({decoder}) is of a kind that Ondol cannot stream.")


def _decoder_spec(tokenizer: Tokenizer) -> dict[str, Any]:
    """The decoder as tokenizer.json describes it, without serializing the vocabulary."""
    if tokenizer.decoder is None:
        raise _refused("none")
    carrier = Tokenizer(BPE())
    carrier.decoder = tokenizer.decoder
    spec: dict[str, Any] = json.loads(carrier.to_str())["decoder"]
    return spec


def _piece_table(tokenizer: Tokenizer, to_bytes: PieceToBytes) -> tuple[bytes, ...]:
    """Bytes by id. Added tokens go through the decoder like any piece, special ones are invisible."""
    added = tokenizer.get_added_tokens_decoder()
    pieces = {token_id: piece for piece, token_id in tokenizer.get_vocab(with_added_tokens=False).items()}
    pieces.update({token_id: token.content for token_id, token in added.items()})
    table = [b""] * (max(pieces, default=-1) + 1)
    for token_id, piece in pieces.items():
        if token_id not in added or not added[token_id].special:
            table[token_id] = to_bytes(piece)
    return tuple(table)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte.

    Bytes that are printable in Latin-1 stand for themselves; the others (controls, spaces, soft
    hyphen) get the code points from U+0100 on, in order.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = sorted(set(range(256)) - set(printable))
    stand_ins = {chr(value): value for value in printable}
    stand_ins.update({chr(256 + index): value for index, value in enumerate(hidden)})
    return stand_ins


def _byte_level_piece(alphabet: Mapping[str, int]) -> PieceToBytes:
    def to_bytes(piece: str) -> bytes:
        values = [alphabet.get(character) for character in piece]
        # One foreign character makes the whole piece plain text: an added token such as "온돌".
        known = [value for value in values if value is not None]
        return bytes(known) if len(known) == len(values) else piece.encode("utf-8")

    return to_bytes


def _is_sentencepiece_sequence(kinds: tuple[str, ...]) -> bool:
    """Whether each step works on one piece, and a Strip, if any, on the fused whole."""
    if not kinds or any(kind not in SENTENCEPIECE_DECODER_ORDER for kind in kinds):
        return False
    ranks = [SENTENCEPIECE_DECODER_ORDER.index(kind) for kind in kinds]
    strips_whole_text = "Strip" not in kinds or (kinds.count("Strip") == 1 and "Fuse" in kinds)
    return ranks == sorted(ranks) and strips_whole_text


def _leading_spaces(strip: Mapping[str, Any]) -> int:
    if strip["content"] != " " or strip["stop"] != 0:
        # Text at the end can only be stripped once the end is known.
        raise _refused(f"Strip of {strip['content']!r}, {strip['stop']} at the end")
    return int(strip["start"])


def _sentencepiece_piece(steps: list[dict[str, Any]]) -> PieceToBytes:
    replacements = []
    for step in steps:
        if step["type"] == "Replace":
            if "String" not in step["pattern"]:
                raise _refused("Replace by pattern")
            replacements.append((step["pattern"]["String"], step["content"]))
    has_byte_tokens = any(step["type"] == "ByteFallback" for step in steps)

    def to_bytes(piece: str) -> bytes:
        for old, new in replacements:
            piece = piece.replace(old, new)
        byte_token = BYTE_TOKEN.fullmatch(piece) if has_byte_tokens else None
        return bytes.fromhex(byte_token[1]) if byte_token else piece.encode("utf-8")

    return to_bytes


def _metaspace_token_bytes(tokenizer: Tokenizer, metaspace: Mapping[str, Any]) -> TokenBytes:
    replacement = metaspace["replacement"]

    def inside(piece: str) -> bytes:
        return piece.replace(replacement, " ").encode("utf-8")

    def first(piece: str) -> bytes:
        return piece.replace(replacement, "").encode("utf-8")

    table = _piece_table(tokenizer, inside)
    if metaspace["prepend_scheme"] == "never":
        return TokenBytes(table)
    first_table = _piece_table(tokenizer, first)
    differing = {
        index: new for index, (old, new) in enumerate(zip(table, first_table, strict=True)) if old != new
    }
    return TokenBytes(table, first_token_bytes=differing)
