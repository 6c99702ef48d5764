"""Folders that `ondol serve` takes: a tiny random checkpoint beside a small real tokenizer."""

from pathlib import Path
from typing import Any

from support.checkpoints import VOCAB_SIZE, save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

# At about a thousand tokens a second an answer of this length never ends by itself in a test.
ENDLESS = 50_000


def save_served_model(folder: Path, family: str = "llama", **overrides: Any) -> Path:
    """A complete model folder; `overrides` go into its config.json."""
    save_checkpoint(folder, family, **overrides)
    save_byte_level_tokenizer(folder, VOCAB_SIZE)
    return folder


def save_endless_model(folder: Path) -> Path:
    """One that has no end token: its answers last as long as its client or its context lets them."""
    save_checkpoint(folder, "llama", eos_token_id=None, max_position_embeddings=ENDLESS + 1000)
    save_byte_level_tokenizer(folder, VOCAB_SIZE, eos_token=None)
    return folder
