"""How far a quantized model's answers are from those of its source: on one text, whole prompt at once.

Knows models and token ids, nothing about files or tokenizers. Both models see the same ids; the figures
say nothing about anything but this text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.kernels.kv_layer import make_kv_layer
from ondol.kernels.paged_attention import AttentionMetadata, PagedKVCache, PrefillSpan
from ondol.modeling.loading import LoadedWeights

LANGUAGES = ("english", "korean")
# Enough for a steady figure; logits of 512 positions over 150,000 words take 0.3 GB.
MAX_TOKENS = 512
BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A model against its source on one text.

    Attributes:
        num_tokens: tokens that were predicted.
        relative_logit_error: root mean square of the logits' differences over that of the source's
            logits; each position's mean is taken off first, for it changes no probability.
        source_perplexity, perplexity: exp of the mean negative log likelihood of the tokens.
        same_top_token: share of positions at which both find the same token likeliest.
    """

    num_tokens: int
    relative_logit_error: float
    source_perplexity: float
    perplexity: float
    same_top_token: float

    @property
    def perplexity_difference(self) -> float:
        """Positive where the model is worse than its source."""
        return self.perplexity - self.source_perplexity


def reference_text(language: str) -> str:
    """The text that comes with Ondol: "english" or "korean"."""
    return (files("ondol.modeling") / "reference_text" / f"{language}.txt").read_text(encoding="utf-8")


def whole_prompt_logits(
    weights: LoadedWeights, token_ids: Sequence[int], kv_dtype: torch.dtype | None = None
) -> Tensor:
    """Logits [T, vocab_size] float32 on the CPU, of every position of one prompt.

    Args:
        weights: a loaded model.
        token_ids: at most its context length.
        kv_dtype: of the KV cache: `FLOAT8`, or None for the model's.
    """
    num_tokens = len(token_ids)
    device = next(iter(weights.model.parameters())).device
    num_blocks = -(-num_tokens // BLOCK_SIZE)
    heads = (weights.num_kv_heads, weights.head_dim)
    blocks = torch.arange(num_blocks, device=device)
    cache = PagedKVCache(
        tuple(
            make_kv_layer(num_blocks, BLOCK_SIZE, heads, kv_dtype or weights.dtype, device)
            for _ in range(weights.num_layers)
        )
    )
    for layer in cache.layers:
        layer.clear(blocks)
    positions = torch.arange(num_tokens, device=device)
    span = PrefillSpan(0, num_tokens, 0, blocks)
    weights.model.prepare(num_tokens)
    with torch.inference_mode():
        ids = torch.tensor(token_ids, device=device)
        metadata = AttentionMetadata(positions, None, [span])
        return weights.model.forward(ids, positions, cache, metadata, positions).cpu()


def compare(source_logits: Tensor, logits: Tensor, token_ids: Sequence[int]) -> Fidelity:
    """Judge logits [T, V] by the source's over the same T >= 2 tokens."""
    wanted = torch.tensor(token_ids[1:])
    centred = source_logits - source_logits.mean(dim=1, keepdim=True)
    difference = logits - logits.mean(dim=1, keepdim=True) - centred
    agreed = source_logits.argmax(dim=1) == logits.argmax(dim=1)
    return Fidelity(
        num_tokens=len(wanted),
        relative_logit_error=float(difference.norm() / centred.norm()),
        source_perplexity=_perplexity(source_logits[:-1], wanted),
        perplexity=_perplexity(logits[:-1], wanted),
        same_top_token=float(agreed.float().mean()),
    )


def _perplexity(logits: Tensor, wanted: Tensor) -> float:
    return math.exp(float(F.cross_entropy(logits, wanted)))
