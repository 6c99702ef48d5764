"""Sentencepiece's BPE vocabularies, as Llama 2 and Mistral have them.

Knows nothing about files. Sentencepiece merges the pair whose union has the best score; tokenizer.json
lists merges by rank: the merges are every way to split a piece into two pieces, the best score first.
The invariant: spaces become "▁" and characters without a piece become bytes, as the models were trained.
"""

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from ondol.errors import ModelRefused

SPACE = "▁"
NUM_BYTES = 256

# Values of gguf.TokenType.
NORMAL = 1


def sentencepiece_tokenizer(
    tokens: Sequence[str],
    scores: Sequence[float],
    token_types: Sequence[int],
    *,
    unknown: str | None,
    add_space_prefix: bool,
) -> Tokenizer:
    """The tokenizer without its special tokens.

    Args:
        unknown: the piece for what has neither piece nor bytes; None if there is none.
        add_space_prefix: a word at the start of a text reads like one after a space.
    """
    pieces = {
        token: score for token, score, kind in zip(tokens, scores, token_types, strict=True) if kind == NORMAL
    }
    model = BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(_merges(pieces)),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=_has_every_byte(tokens),
    )
    tokenizer = Tokenizer(model)
    replace = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if add_space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, replace])
    strip = [decoders.Strip(content=" ", left=1, right=0)] if add_space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(scores: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Every way to put a piece together from two pieces; the best score first, then by the pieces' order."""
    for piece in sorted(scores, key=lambda piece: -scores[piece]):
        for middle in range(1, len(piece)):
            left, right = piece[:middle], piece[middle:]
            if left in scores and right in scores:
                yield left, right


def _has_every_byte(tokens: Sequence[str]) -> bool:
    known = set(tokens)
    missing = [byte for byte in range(NUM_BYTES) if f"<0x{byte:02X}>" not in known]
    if 0 < len(missing) < NUM_BYTES:
        raise ModelRefused(f"The tokenizer has no token for the byte <0x{missing[0]:02X}>.")
    return not missing
