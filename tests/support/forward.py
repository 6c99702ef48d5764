"""Whole prompts through a loaded model in one flat batch, without scheduler or sampler."""

from collections.abc import Sequence
from itertools import accumulate

import torch

from ondol.engine.kv_cache import KVPlan, KVShape, allocate
from ondol.kernels.paged_attention import AttentionMetadata, PrefillSpan
from ondol.modeling.loading import LoadedWeights

BLOCK_SIZE = 4


def prompt_logits(weights: LoadedWeights, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits [len(prompt), vocab_size] of every prompt; all prompts are computed together."""
    num_blocks = [-(-len(prompt) // BLOCK_SIZE) for prompt in prompts]
    shape = KVShape(weights.num_layers, weights.num_kv_heads, weights.head_dim)
    longest = max(map(len, prompts))
    plan = KVPlan(sum(num_blocks), BLOCK_SIZE, longest, 0)
    cache = allocate(plan, shape, weights.dtype, torch.device("cpu"))
    # Blocks are handed out backwards, so that nothing works by being contiguous.
    tables = torch.arange(plan.num_blocks).flip(0).split(num_blocks)
    starts = list(accumulate(map(len, prompts), initial=0))[:-1]
    spans, slots, positions = [], [], []
    for prompt, start, table in zip(prompts, starts, tables, strict=True):
        spans.append(PrefillSpan(start, len(prompt), 0, table))
        position = torch.arange(len(prompt))
        positions.append(position)
        slots.append(table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE)
    token_ids = torch.tensor([token for prompt in prompts for token in prompt])
    weights.model.prepare(longest)
    with torch.inference_mode():
        logits = weights.model.forward(
            token_ids,
            torch.cat(positions),
            cache,
            AttentionMetadata(torch.cat(slots), None, spans),
            torch.arange(len(token_ids)),
        )
    return list(logits.split([len(prompt) for prompt in prompts]))
