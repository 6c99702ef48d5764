"""The tokenizer inside a GGUF file, rebuilt as tokenizer.json, tokenizer_config.json and a template.

Knows nothing about weights. The invariant: what the file says about its tokenizer is carried over
exactly or refused by name.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.byte_level import byte_level_tokenizer, starts_with_bos
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.sentencepiece import SPACE, sentencepiece_tokenizer

# Values of gguf.TokenType.
UNKNOWN = 2
CONTROL = 3
USER_DEFINED = 4

SPECIAL_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# What text is put through before it is split, beyond what is rebuilt here.
REFUSED_KEYS = ("tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.remove_extra_whitespaces")


def write_tokenizer(checkpoint: GGUFCheckpoint, folder: Path) -> None:
    """Write the tokenizer's files into a folder.

    Raises:
        ModelRefused: the tokenizer is of an unknown kind.
    """
    tokens: list[str] = checkpoint.field("tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens):
        raise ModelRefused(f"{checkpoint.name} lists a token twice.")
    roles = special_tokens(checkpoint, tokens)
    tokenizer, adds_bos = _split_rules(checkpoint, tokens, roles)
    _add_special_tokens(tokenizer, tokens, checkpoint.field("tokenizer.ggml.token_type"))
    adds_bos = bool(checkpoint.field("tokenizer.ggml.add_bos_token", adds_bos))
    adds_eos = bool(checkpoint.field("tokenizer.ggml.add_eos_token", False))
    front = [roles["bos_token"]] if adds_bos and "bos_token" in roles else []
    back = [roles["eos_token"]] if adds_eos and "eos_token" in roles else []
    if front or back:
        tokenizer.post_processor = TemplateProcessing(
            single=[*front, "$A", *back],
            special_tokens=[(token, tokens.index(token)) for token in dict.fromkeys((*front, *back))],
        )
    # Not Tokenizer.save: a full disk would come out of it as a bare Exception.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    settings = {
        # The class that takes tokenizer.json as it is; a model's own class may rebuild it by its own rules.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(front),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": checkpoint.number("context_length"),
        **roles,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    template = checkpoint.field("tokenizer.chat_template", "")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def special_tokens(checkpoint: GGUFCheckpoint, tokens: list[str]) -> dict[str, str]:
    """The tokens that play a role, by tokenizer_config.json's name for it."""
    ids = {
        role: checkpoint.field(f"tokenizer.ggml.{key}_token_id", -1) for role, key in SPECIAL_ROLES.items()
    }
    return {role: tokens[token_id] for role, token_id in ids.items() if 0 <= token_id < len(tokens)}


def _split_rules(
    checkpoint: GGUFCheckpoint, tokens: list[str], roles: dict[str, str]
) -> tuple[Tokenizer, bool]:
    """The tokenizer without special tokens, and whether it starts with BOS where the file does not say."""
    for key in REFUSED_KEYS:
        if checkpoint.field(key, False):
            raise ModelRefused(f"{checkpoint.name} has the metadata key {key}, which is not converted.")
    model = checkpoint.field("tokenizer.ggml.model")
    if model == "gpt2":
        rules = checkpoint.field("tokenizer.ggml.pre")
        merges = checkpoint.field("tokenizer.ggml.merges")
        return byte_level_tokenizer(tokens, merges, rules), starts_with_bos(rules)
    if model == "llama":
        tokenizer = sentencepiece_tokenizer(
            tokens,
            checkpoint.field("tokenizer.ggml.scores"),
            checkpoint.field("tokenizer.ggml.token_type"),
            unknown=roles.get("unk_token"),
            add_space_prefix=bool(checkpoint.field("tokenizer.ggml.add_space_prefix", True)),
        )
        return tokenizer, True
    raise ModelRefused(f"The tokenizer model {model!r} is not converted; known are 'gpt2' and 'llama'.")


def _add_special_tokens(tokenizer: Tokenizer, tokens: list[str], token_types: list[int]) -> None:
    for token, kind in zip(tokens, token_types, strict=True):
        if kind == USER_DEFINED and SPACE in token:
            raise ModelRefused(f"The tokenizer has a token of the user's own with a space ({token!r}).")
        if kind in (UNKNOWN, CONTROL, USER_DEFINED):
            special = kind != USER_DEFINED
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)])
