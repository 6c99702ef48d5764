"""Log-probabilities of chosen tokens and of the likeliest ones, from raw logits.

Knows tensors, nothing about requests. Values are log_softmax over float32 logits as the model computed
them: before temperature, penalties, bias and masks. Invariant: computing them waits for no device; whoever
reads them has waited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.engine.messages import TokenLogprob
from ondol.kernels.operators import logsumexp

# What OpenAI's API calls very unlikely; keeps infinities out of JSON.
MIN_LOGPROB = -9999.0
# Rows that are worked on at once: each takes a scratch row of vocab_size floats.
NUM_SLICE_ROWS = 64


@dataclass(frozen=True, slots=True)
class LogprobRows:
    """Log-probabilities of B rows, on any device.

    Attributes:
        chosen: [B] float32, of one token per row.
        top_ids: [B, K] int64, each row's likeliest tokens.
        top: [B, K] float32, theirs.
    """

    chosen: Tensor
    top_ids: Tensor
    top: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a copy on another device is made of."""
        return self.chosen, self.top_ids, self.top

    def read(self, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprob]:
        """One value per row, on the host.

        Args:
            token_ids: the B tokens that were chosen.
            num_top: how many of each row's likeliest tokens to report, at most K.
        """
        rows = zip(
            token_ids, self.chosen.tolist(), self.top_ids.tolist(), self.top.tolist(), num_top, strict=True
        )
        return [
            TokenLogprob(token_id, logprob, tuple(ids[:count]), tuple(values[:count]))
            for token_id, logprob, ids, values, count in rows
        ]


def compute_logprobs(
    logits: Tensor,
    token_ids: Tensor,
    num_top: int,
    logsumexp: Callable[[Tensor], Tensor] = logsumexp,
) -> LogprobRows:
    """Log-probabilities of one token per row and of the likeliest ones.

    Args:
        logits: [B, vocab_size] float32; B may be 0. Rows that are not finite give values without a meaning.
        token_ids: [B] int64 on the same device, within the vocabulary.
        num_top: K, cut to the vocabulary.
        logsumexp: the kernels'.
    """
    slices = []
    for start in range(0, max(1, len(token_ids)), NUM_SLICE_ROWS):
        rows = slice(start, start + NUM_SLICE_ROWS)
        slices.append(_of_slice(logits[rows], logsumexp(logits[rows]), token_ids[rows], num_top))
    return LogprobRows(*(torch.cat(parts) for parts in zip(*slices, strict=True)))


def _of_slice(
    logits: Tensor, log_total: Tensor, token_ids: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = _relative(logits.gather(1, token_ids[:, None]), log_total).squeeze(1)
    top = logits.topk(min(num_top, logits.shape[1]), dim=-1)
    return chosen, top.indices, _relative(top.values, log_total)


def _relative(logits: Tensor, log_total: Tensor) -> Tensor:
    return (logits - log_total).clamp_(min=MIN_LOGPROB)
