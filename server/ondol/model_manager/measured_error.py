"""Measures what quantizing cost: a model and its quantized copy, both run on the text that Ondol ships.

Knows folders; what is compared, and how, is `modeling/fidelity.py`'s. One model is in memory at a time.
"""

from pathlib import Path

import torch

from ondol.errors import DoesNotFit
from ondol.modeling.fidelity import (
    LANGUAGES,
    MAX_TOKENS,
    Fidelity,
    compare,
    reference_text,
    whole_prompt_logits,
)
from ondol.modeling.loading import load_model
from ondol.text.tokenizer import TextTokenizer

Prompts = dict[str, list[int]]


def measure_error(
    source: Path, quantized: Path, tokenizer: TextTokenizer, device: torch.device, dtype: str
) -> dict[str, Fidelity]:
    """By language, how far the copy's answers are from its source's.

    Args:
        source, quantized: model folders with the same tokens.
        tokenizer: of both.
        device, dtype: where and in what both run.

    Raises:
        ModelRefused: either cannot be loaded.
        DoesNotFit: the source is too large for this machine's memory.
    """
    prompts = {language: tokenizer.encode_text(reference_text(language)) for language in LANGUAGES}
    try:
        expected = _logits(source, prompts, device, dtype)
        found = _logits(quantized, prompts, device, dtype)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise DoesNotFit(
            f"{quantized} is written, but measuring its error runs the source too, for which the memory "
            "does not suffice: --no-measure leaves that out."
        ) from error
    return {
        language: compare(expected[language], found[language], prompts[language][: len(found[language])])
        for language in LANGUAGES
    }


def _logits(folder: Path, prompts: Prompts, device: torch.device, dtype: str) -> dict[str, torch.Tensor]:
    weights = load_model(folder, device, dtype)
    num_tokens = min(MAX_TOKENS, weights.context_length)
    return {
        language: whole_prompt_logits(weights, token_ids[:num_tokens])
        for language, token_ids in prompts.items()
    }
