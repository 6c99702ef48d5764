"""Log-probabilities of chosen tokens and of the likeliest ones, from raw logits.

Knows tensors, nothing about requests. Values are log_softmax over float32 logits as the model computed
them: before temperature, penalties, bias and masks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ondol.engine.messages import TokenLogprob

# What OpenAI's API calls very unlikely; keeps infinities out of JSON.
MIN_LOGPROB = -9999.0
# Rows that are worked on at once: each takes a scratch row of vocab_size floats.
NUM_SLICE_ROWS = 64


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprob]:
    """Log-probabilities of one token per row.

    Args:
        logits: [B, vocab_size] float32, finite.
        token_ids: the B tokens.
        num_top: how many of each row's likeliest tokens to report.
    """
    found = []
    for start in range(0, len(token_ids), NUM_SLICE_ROWS):
        stop = start + NUM_SLICE_ROWS
        found += _of_slice(logits[start:stop], token_ids[start:stop], num_top[start:stop])
    return found


def _of_slice(logits: Tensor, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprob]:
    log_total = logits.logsumexp(dim=-1, keepdim=True)
    chosen = torch.tensor(token_ids, dtype=torch.int64, device=logits.device)[:, None]
    chosen_logprobs = _relative(logits.gather(1, chosen), log_total).squeeze(1).tolist()
    top = logits.topk(min(max(num_top), logits.shape[1]), dim=-1)
    top_ids, top_logprobs = top.indices.tolist(), _relative(top.values, log_total).tolist()
    return [
        TokenLogprob(token_id, logprob, tuple(ids[:count]), tuple(values[:count]))
        for token_id, logprob, ids, values, count in zip(
            token_ids, chosen_logprobs, top_ids, top_logprobs, num_top, strict=True
        )
    ]


def _relative(logits: Tensor, log_total: Tensor) -> Tensor:
    return (logits - log_total).clamp_(min=MIN_LOGPROB)
