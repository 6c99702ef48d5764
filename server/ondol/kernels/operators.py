"""The small operators of a decoder layer: the torch reference.

Each function is one fusion boundary: a hardware kernel replaces exactly one of them and must agree
with it. Knows nothing about models or requests.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden [.., K] times weight [N, K], plus bias [N]: [.., N]."""
    return F.linear(hidden, weight, bias)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm, computed in float32 (arXiv:1910.07467).

    Args:
        hidden: [T, H] of any float dtype, which the result keeps.
        weight: [H].
        eps: added to the mean square.
    """
    wide = hidden.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * normed.to(hidden.dtype)


def add_rms_norm(branch: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add a branch to the residual stream and norm the sum for the next branch.

    Args:
        branch, residual: [T, H]; neither is read again, an implementation may overwrite both.
        weight, eps: as `rms_norm` takes them.

    Returns:
        The normed sum and the sum, [T, H] each.
    """
    total = residual + branch
    return rms_norm(total, weight, eps), total


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout (arXiv:2104.09864).

    Args:
        states: [T, heads, head_dim].
        cos, sin: [T, 1, head_dim], each half repeated, in the dtype of `states`.
    """
    half = states.shape[-1] // 2
    rotated = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos + rotated * sin


def silu_mul(gate_up: Tensor) -> Tensor:
    """SwiGLU's product: silu(gate) * up for [T, 2 * I] holding gate then up; returns [T, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def logsumexp(logits: Tensor) -> Tensor:
    """Logarithm of the sum of the exponentials of each row: [B, vocab_size] float32 -> [B, 1]."""
    return logits.logsumexp(dim=-1, keepdim=True)


def route(router_logits: Tensor, top_k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Top-k experts of each row and their weights.

    Args:
        router_logits: [T, num_experts].
        top_k: experts per row.
        normalize: rescale the k weights to sum to one (Qwen1.5-MoE does not).

    Returns:
        weights [T, top_k] in the logits' dtype and expert numbers [T, top_k], int64.
    """
    weights, experts = F.softmax(router_logits, dim=-1, dtype=torch.float32).topk(top_k, dim=-1)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.to(router_logits.dtype), experts


def mixture_of_experts(
    hidden: Tensor,
    weights: Tensor,
    experts: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *,
    linear: Linear = linear,
    activate: Callable[[Tensor], Tensor] = silu_mul,
) -> Tensor:
    """Each row through its chosen experts, summed with their weights.

    Args:
        hidden: [T, H].
        weights, experts: [T, top_k], from `route`.
        gate_up: [num_experts, 2 * I, H].
        down: [num_experts, H, I].
        linear, activate: the operators that it is made of.

    Returns:
        [T, H].
    """

    def compute(rows: Tensor, expert: int) -> Tensor:
        return linear(activate(linear(rows, gate_up[expert], None)), down[expert], None)

    return sum_over_experts(hidden, weights, experts, gate_up.shape[0], compute)


def sum_over_experts(
    hidden: Tensor,
    weights: Tensor,
    experts: Tensor,
    num_experts: int,
    compute: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Each row's experts, summed with their weights in the order of the experts' numbers: [T, H].

    Args:
        hidden, weights, experts: as `mixture_of_experts` takes them.
        num_experts: how many there are.
        compute: rows [n, H] through one expert, [n, H].
    """
    output = torch.zeros_like(hidden)
    flat = experts.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts).tolist()
    top_k = experts.shape[1]
    for expert, chosen in enumerate(torch.split(order, counts)):
        if chosen.numel():
            rows = chosen // top_k
            output.index_add_(0, rows, compute(hidden[rows], expert) * weights.flatten()[chosen, None])
    return output
