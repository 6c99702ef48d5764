"""Byte-level BPE tokenizers, as GPT-2, Llama 3, Qwen2 and SmolLM have them.

Knows nothing about files. The invariant: text is split only by rules that are known here; any other
pre-tokenizer is refused, for a nearly right tokenizer answers nearly right for ever.
"""

from collections.abc import Sequence as Items

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from ondol.errors import ModelRefused

# Names of `tokenizer.ggml.pre`, by the rules that they stand for.
GPT2 = ("gpt-2", "gpt2")
SMOLLM = ("smollm",)
LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
QWEN2 = ("qwen2", "deepseek-r1-qwen")
DEFAULT = ("default",)

# The tokenizer.json of Llama 3 and of Qwen2: they differ in how many digits make a piece.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What llama.cpp does for vocabularies whose pre-tokenizer its converter did not recognize.
DEFAULT_PATTERNS = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)


def byte_level_tokenizer(tokens: Items[str], merges: Items[str], pre_tokenizer: str) -> Tokenizer:
    """The tokenizer without its special tokens; `merges` are pairs joined by a space, by rank.

    Raises:
        ModelRefused: the pre-tokenizer is unknown.
    """
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # Llama 3 takes a piece that is a token as it is, whatever its merges would make of it.
    model = BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre_tokenizer in LLAMA3)
    tokenizer = Tokenizer(model)
    if pre_tokenizer in QWEN2:
        tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = known_pre_tokenizer(pre_tokenizer)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def known_pre_tokenizer(name: str) -> PreTokenizer:
    """The splitting rules behind a GGUF `tokenizer.ggml.pre` name."""
    if name in GPT2:
        return ByteLevel(add_prefix_space=False)
    if name in SMOLLM:
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if name in LLAMA3:
        return _split_by(SPLIT_PATTERN % "{1,3}")
    if name in QWEN2:
        return _split_by(SPLIT_PATTERN % "")
    if name in DEFAULT:
        return _split_by(*DEFAULT_PATTERNS)
    known = ", ".join((*GPT2, *SMOLLM, *LLAMA3, *QWEN2, *DEFAULT))
    raise ModelRefused(f"The pre-tokenizer {name!r} is not converted; known are {known}.")


def starts_with_bos(pre_tokenizer: str) -> bool:
    """Whether plain text gets BOS in front where the file does not say."""
    return pre_tokenizer in LLAMA3


def _split_by(*patterns: str) -> PreTokenizer:
    splits = [Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
