"""Mixtures of experts on the device: routing, grouping of rows by expert, and the sum over a row's experts.

The same operators as in `ondol.kernels.operators` and `ondol.kernels.quantized`, the references. Nothing here
waits for the device, so that a decode step can be captured. Few pairs of row and expert are multiplied one by
one; more are grouped by expert first, so that an expert's weights are read once per tile of rows. Invariant:
a row's experts are added in its own order of them, and no result depends on other rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels import quantized as reference
from ondol.kernels.operators import Linear, linear, silu_mul
from ondol.kernels.quantized import QuantizedMatrix
from ondol.kernels.triton.gemm import multiply
from ondol.kernels.triton.quantized import can_fuse
from ondol.kernels.triton.rows import MAX_ROW_TILES, TILE_ROWS, Rows
from ondol.kernels.triton.weights import matrix_arguments, stack_arguments

# Pairs and tiles that the grouping kernel looks at together.
GROUPING_CHUNK = 128
# Columns that one program of the last sum takes.
SUM_BLOCK = 512


def route(router_logits: Tensor, top_k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Top-k experts of each row and their weights; see `operators.route`. Of equals the first is taken."""
    num_rows, num_experts = router_logits.shape
    weights = torch.empty((num_rows, top_k), dtype=router_logits.dtype, device=router_logits.device)
    experts = torch.empty((num_rows, top_k), dtype=torch.int64, device=router_logits.device)
    _route_kernel[(num_rows,)](
        router_logits, weights, experts, router_logits.stride(0), NUM_EXPERTS=num_experts, TOP_K=top_k,
        NORMALIZE=normalize, BLOCK=triton.next_power_of_2(num_experts), num_warps=1,
    )  # fmt: skip
    return weights, experts


def mixture_of_experts(
    hidden: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Each row through its chosen experts, summed with their weights; see `operators.mixture_of_experts`."""
    rows = group_rows(experts, gate_up.shape[0])
    gated = _new(hidden, experts.numel(), gate_up.shape[1] // 2)
    multiply(hidden.contiguous(), stack_arguments(gate_up), gated, rows, is_gated=True)
    return _down_and_sum(gated, weights, rows, stack_arguments(down), None)


def quantized_mixture_of_experts(
    hidden: Tensor,
    weights: Tensor,
    experts: Tensor,
    gate_up: Sequence[QuantizedMatrix],
    down: QuantizedMatrix,
    *,
    linear: Linear = linear,
) -> Tensor:
    """As `mixture_of_experts`, over stacks of quantized matrices; see `ondol.kernels.quantized`.

    Stacks that the fused kernel cannot read are computed by the reference, which waits for the device, and
    `linear`.
    """
    if not all(can_fuse(stack) for stack in (*gate_up, down)):
        return reference.quantized_mixture_of_experts(hidden, weights, experts, gate_up, down, linear=linear)
    rows = group_rows(experts, down.codes.shape[0])
    inputs = hidden.contiguous()
    is_gated = len(gate_up) == 1
    gated = _new(hidden, experts.numel(), gate_up[0].shape[0] // 2 if is_gated else 2 * gate_up[0].shape[0])
    for index, stack in enumerate(gate_up):
        columns = gated[:, index * stack.shape[0] :]
        arguments = matrix_arguments(stack, hidden.dtype)
        multiply(inputs, arguments, columns, rows, column_order=stack.column_order, is_gated=is_gated)
    if not is_gated:
        gated = silu_mul(gated)
    return _down_and_sum(gated, weights, rows, matrix_arguments(down, hidden.dtype), down.column_order)


def group_rows(experts: Tensor, num_experts: int) -> Rows:
    """Which program multiplies which (row, slot) pairs; nothing of it is known to the host but bounds.

    Args:
        experts: [T, top_k] int64.
        num_experts: length of the stack.
    """
    top_k = experts.shape[1]
    flat = experts.reshape(-1).contiguous()
    num_pairs = flat.numel()
    # So few that most experts are chosen by one row at most.
    if 2 * num_pairs <= num_experts:
        return Rows(num_pairs, 1, flat, top_k=top_k)
    row_tiles = 1 if num_pairs <= TILE_ROWS * num_experts else MAX_ROW_TILES
    tile = TILE_ROWS * row_tiles
    # Every expert with rows has at most one tile that is not full.
    num_tiles = num_pairs // tile + min(num_experts, num_pairs)
    pairs = torch.empty(num_pairs, dtype=torch.int32, device=experts.device)
    tiles = torch.empty((num_tiles, 3), dtype=torch.int32, device=experts.device)
    _group_kernel[(num_experts,)](
        flat, pairs, tiles, num_pairs, num_tiles, NUM_EXPERTS=num_experts,
        BLOCK_EXPERTS=triton.next_power_of_2(num_experts), TILE=tile, CHUNK=GROUPING_CHUNK, num_warps=4,
    )  # fmt: skip
    return Rows(num_tiles, row_tiles, flat, pairs, tiles, top_k)


def _down_and_sum(
    gated: Tensor, weights: Tensor, rows: Rows, down: dict[str, Any], column_order: Tensor | None
) -> Tensor:
    """[pairs, I] through the down projections, then each row's pairs summed: [T, H]."""
    num_rows, top_k = weights.shape
    products = _new(gated, num_rows * top_k, down["NUM_OUT"])
    # From here on a pair has a row of its own.
    by_pair = Rows(rows.num_tiles, rows.row_tiles, rows.experts, rows.pairs, rows.tiles)
    multiply(gated, down, products, by_pair, column_order=column_order)
    out = _new(gated, num_rows, down["NUM_OUT"])
    grid = (num_rows, triton.cdiv(down["NUM_OUT"], SUM_BLOCK))
    _sum_kernel[grid](
        products, weights.contiguous(), out, NUM_COLUMNS=down["NUM_OUT"], TOP_K=top_k, BLOCK=SUM_BLOCK,
        num_warps=4,
    )  # fmt: skip
    return out


def _new(like: Tensor, num_rows: int, num_columns: int) -> Tensor:
    return torch.empty((num_rows, num_columns), dtype=like.dtype, device=like.device)


@triton.jit
def _route_kernel(
    logits, weights, experts, stride,
    NUM_EXPERTS: tl.constexpr, TOP_K: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    is_expert = index < NUM_EXPERTS
    scores = tl.load(logits + row * stride + index, mask=is_expert, other=float("-inf")).to(tl.float32)
    exponentials = tl.exp(scores - tl.max(scores, axis=0))
    probabilities = exponentials / tl.sum(exponentials, axis=0)
    # A row that is not finite goes to experts that are there all the same; it stays what it is by itself.
    probabilities = tl.where(probabilities == probabilities, probabilities, 0.0)
    # Absent experts, and those already chosen, lie below every probability.
    left = tl.where(is_expert, probabilities, -1.0)
    total = tl.sum(tl.zeros((BLOCK,), tl.float32), axis=0)
    chosen = ()
    for slot in tl.static_range(TOP_K):
        best, expert = tl.max(left, axis=0, return_indices=True)
        tl.store(experts + row * TOP_K + slot, expert.to(tl.int64))
        chosen = chosen + (best,)  # type: ignore[assignment]
        total += best
        left = tl.where(index == expert, -1.0, left)
    for slot in tl.static_range(TOP_K):
        weight = chosen[slot] / total if NORMALIZE else chosen[slot]
        tl.store(weights + row * TOP_K + slot, weight.to(weights.dtype.element_ty))


@triton.jit(do_not_specialize=["num_pairs", "num_tiles"])
def _group_kernel(
    experts, pairs, tiles, num_pairs, num_tiles,
    NUM_EXPERTS: tl.constexpr, BLOCK_EXPERTS: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program per expert: a stable counting sort without atomics, each counting all that comes before."""
    own = tl.program_id(0)
    every = tl.arange(0, BLOCK_EXPERTS)
    counts = tl.zeros((BLOCK_EXPERTS,), tl.int32)
    for start in range(0, num_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        expert = tl.load(experts + pair, mask=pair < num_pairs, other=-1)
        counts += tl.sum((expert[:, None] == every[None, :]).to(tl.int32), axis=0)
    num_own = tl.sum(tl.where(every == own, counts, 0), axis=0)
    first = tl.sum(tl.where(every < own, counts, 0), axis=0)
    first_tile = tl.sum(tl.where(every < own, (counts + TILE - 1) // TILE, 0), axis=0)
    place = first
    for start in range(0, num_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        is_own = tl.load(experts + pair, mask=pair < num_pairs, other=-1) == own
        rank = tl.cumsum(is_own.to(tl.int32), axis=0)
        tl.store(pairs + place + rank - 1, pair, mask=is_own)
        place += tl.sum(is_own.to(tl.int32), axis=0)
    last_tile = first_tile + (num_own + TILE - 1) // TILE
    for start in range(0, num_tiles, CHUNK):
        tile = start + tl.arange(0, CHUNK)
        done = (tile - first_tile) * TILE
        is_own = (tile >= first_tile) & (tile < last_tile)
        # What is left over after the last expert's tiles belongs to nobody.
        is_left = (own == NUM_EXPERTS - 1) & (tile >= last_tile) & (tile < num_tiles)
        tl.store(tiles + tile * 3, tl.where(is_own, own, -1), mask=is_own | is_left)
        tl.store(tiles + tile * 3 + 1, first + done, mask=is_own)
        tl.store(tiles + tile * 3 + 2, tl.minimum(num_own - done, TILE), mask=is_own)


@triton.jit
def _sum_kernel(
    products, weights, out, NUM_COLUMNS: tl.constexpr, TOP_K: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = column < NUM_COLUMNS
    total = tl.zeros((BLOCK,), tl.float32)
    for slot in tl.static_range(TOP_K):
        pair = row * TOP_K + slot
        product = tl.load(products + pair * NUM_COLUMNS + column, mask=is_column, other=0.0)
        total += product.to(tl.float32) * tl.load(weights + pair).to(tl.float32)
    tl.store(out + row * NUM_COLUMNS + column, total.to(out.dtype.element_ty), mask=is_column)
