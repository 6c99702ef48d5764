"""The tokenizer inside a GGUF file, rebuilt as tokenizer.json, tokenizer_config.json and a template.

Knows nothing about weights. The invariant: a pre-tokenizer is rebuilt only if its rules are known
here; any other is refused, for a nearly right tokenizer answers nearly right for ever.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint

# Values of gguf.TokenType.
CONTROL = 3
USER_DEFINED = 4

SPECIAL_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def write_tokenizer(checkpoint: GGUFCheckpoint, folder: Path) -> None:
    """Write the tokenizer's files into a folder.

    Raises:
        ModelRefused: the tokenizer is no byte-level BPE, or its pre-tokenizer is unknown.
    """
    model = checkpoint.field("tokenizer.ggml.model")
    if model != "gpt2":
        raise ModelRefused(f"The tokenizer model {model!r} is unknown; only byte-level BPE is known.")
    tokens: list[str] = checkpoint.field("tokenizer.ggml.tokens")
    tokenizer = build_tokenizer(
        tokens,
        checkpoint.field("tokenizer.ggml.merges"),
        checkpoint.field("tokenizer.ggml.token_type"),
        checkpoint.field("tokenizer.ggml.pre"),
    )
    # Not Tokenizer.save: a full disk would come out of it as a bare Exception.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    settings = json.dumps(tokenizer_settings(checkpoint, tokens), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(settings + "\n", encoding="utf-8")
    template = checkpoint.field("tokenizer.chat_template", "")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def build_tokenizer(
    tokens: list[str], merges: list[str], token_types: list[int], pre_tokenizer: str
) -> Tokenizer:
    """A byte-level BPE tokenizer; `merges` are pairs joined by a space, in order of rank."""
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = known_pre_tokenizer(pre_tokenizer)
    tokenizer.decoder = ByteLevelDecoder()
    for token, token_type in zip(tokens, token_types, strict=True):
        if token_type in (CONTROL, USER_DEFINED):
            special = token_type == CONTROL
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)])
    return tokenizer


def known_pre_tokenizer(name: str) -> PreTokenizer:
    """The splitting rules behind a GGUF `tokenizer.ggml.pre` name."""
    byte_level = ByteLevel(add_prefix_space=False)
    if name == "smollm":
        return Sequence([Digits(individual_digits=True), byte_level])
    if name == "gpt-2":
        return byte_level
    raise ModelRefused(f"The pre-tokenizer {name!r} is not converted; known are 'smollm' and 'gpt-2'.")


def tokenizer_settings(checkpoint: GGUFCheckpoint, tokens: list[str]) -> dict[str, Any]:
    """What tokenizer_config.json holds."""
    settings: dict[str, Any] = {
        # The class that takes tokenizer.json as it is; a model's own class may rebuild it by its own rules.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": checkpoint.field("llama.context_length"),
    }
    for role, key in SPECIAL_ROLES.items():
        token_id = checkpoint.field(f"tokenizer.ggml.{key}_token_id", -1)
        if 0 <= token_id < len(tokens):
            settings[role] = tokens[token_id]
    return settings
