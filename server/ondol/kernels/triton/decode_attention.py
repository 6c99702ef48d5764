"""Attention of single rows over their paged context, in splits of fixed length (Flash-Decoding).

A program takes one row, one KV head and one split of the context; all query heads that share the KV head
are the rows of its matrix product, so keys and values are read once. A second kernel merges the splits in
their order. Knows nothing about prefills. Invariant: how a row's sums are cut depends on its own context
alone.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows
from ondol.kernels.triton.attention_tile import MIN_DOT_ROWS, attend_tile

# Positions that one program sums up. Never changed by load or context: it is part of the result's bits.
SPLIT_LEN = 256


def attend_decodes(
    query: Tensor,
    layer: KVLayer,
    metadata: AttentionMetadata,
    output: Tensor,
    options: dict[str, Any],
) -> None:
    """Write the decode rows of `output` [T, num_heads, head_dim].

    Args:
        query, layer, metadata: as `paged_attention` takes them.
        options: scale, window and shapes, as `attention.paged_attention` makes them.
    """
    decodes = metadata.decodes
    assert decodes is not None, "the caller has seen decode rows"
    assert decodes.block_tables.is_contiguous(), "tables lie row by row"
    shape = query.shape[1:]
    workspace = metadata.once(("splits", *shape), lambda: make_workspace(decodes, *shape))
    attend_rows(query, layer, decodes, workspace, output, options)


def attend_rows(
    query: Tensor,
    layer: KVLayer,
    decodes: DecodeRows,
    workspace: tuple[Tensor, Tensor],
    output: Tensor,
    options: dict[str, Any],
) -> None:
    """Write some rows of `output` [T, num_heads, head_dim].

    Args:
        query, layer, options: as `attend_decodes` takes them.
        decodes: the rows; their tables may be one and the same.
        workspace: from `make_workspace`, overwritten.
    """
    num_heads, head_dim = query.shape[1:]
    num_splits = triton.cdiv(decodes.max_context_len, SPLIT_LEN)
    sums, weighted = workspace
    group = num_heads // layer.num_kv_heads
    num_rows = len(decodes.rows)
    layout = (decodes.rows, decodes.block_tables, decodes.context_lens)
    _split_kernel[(num_rows, layer.num_kv_heads, num_splits)](
        *(query, layer.keys, layer.values, layer.key_scales, layer.value_scales, *layout, sums, weighted),
        table_stride=decodes.block_tables.stride(0),
        num_splits=num_splits,
        GROUP=group,
        BLOCK_M=max(MIN_DOT_ROWS, triton.next_power_of_2(group)),
        SPLIT_LEN=SPLIT_LEN,
        **options,
        num_warps=4,
    )
    _merge_kernel[(num_rows, num_heads)](
        *(sums, weighted, decodes.rows, decodes.context_lens, output, num_splits, options["window"]),
        HEAD_DIM=head_dim,
        BLOCK_D=options["BLOCK_D"],
        SPLIT_LEN=SPLIT_LEN,
        num_warps=1,
    )


def make_workspace(decodes: DecodeRows, num_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Maximum and sum [B, num_heads, num_splits, 2], weighted values [.., head_dim]: of every split."""
    lead = (len(decodes.rows), num_heads, triton.cdiv(decodes.max_context_len, SPLIT_LEN))
    device = decodes.rows.device
    return (
        torch.empty((*lead, 2), dtype=torch.float32, device=device),
        torch.empty((*lead, head_dim), dtype=torch.float32, device=device),
    )


# Not specialized: what grows with the contexts. Triton would compile anew, in the middle of an answer, for
# values that are 1 or a multiple of 16.
@triton.jit(do_not_specialize=("table_stride", "num_splits"))
def _split_kernel(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_scales: tl.tensor | None,
    value_scales: tl.tensor | None,
    rows: tl.tensor,
    tables: tl.tensor,
    context_lens: tl.tensor,
    sums: tl.tensor,
    weighted_values: tl.tensor,
    scale: float,
    window: int,
    table_stride: int,
    num_splits: int,
    GROUP: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
) -> None:
    index, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    context = tl.load(context_lens + index)
    oldest = tl.maximum(context - window, 0)
    first = split * SPLIT_LEN
    stop = tl.minimum(first + SPLIT_LEN, context)
    if stop > tl.maximum(first, oldest):
        row = tl.load(rows + index).to(tl.int64)
        member, column = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
        inside = (member < GROUP)[:, None] & (column < HEAD_DIM)[None, :]
        head = (kv_head * GROUP + member)[:, None]
        base = row * NUM_KV_HEADS * GROUP * HEAD_DIM
        vectors = tl.load(query + base + head * HEAD_DIM + column[None, :], mask=inside, other=0.0)
        maximum = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        visible = (tl.zeros([BLOCK_M], tl.int32) + oldest, tl.zeros([BLOCK_M], tl.int32) + context - 1)
        cache = (keys, values, key_scales, value_scales, tables + index.to(tl.int64) * table_stride)
        for start in range(first, stop, BLOCK_N):
            maximum, total, weighted = attend_tile(
                *(vectors, (maximum, total, weighted), cache, start, stop, visible, kv_head, scale),
                *(NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_N, BLOCK_D),
            )
        part = (index.to(tl.int64) * NUM_KV_HEADS * GROUP + kv_head * GROUP + member) * num_splits + split
        tl.store(sums + part * 2, maximum, mask=member < GROUP)
        tl.store(sums + part * 2 + 1, total, mask=member < GROUP)
        tl.store(weighted_values + part[:, None] * HEAD_DIM + column[None, :], weighted, mask=inside)


@triton.jit(do_not_specialize=("num_splits",))
def _merge_kernel(
    sums: tl.tensor,
    weighted_values: tl.tensor,
    rows: tl.tensor,
    context_lens: tl.tensor,
    output: tl.tensor,
    num_splits: int,
    window: int,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
) -> None:
    index, head, num_heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    context = tl.load(context_lens + index)
    column = tl.arange(0, BLOCK_D)
    inside = column < HEAD_DIM
    first = tl.maximum(context - window, 0) // SPLIT_LEN
    part = (index.to(tl.int64) * num_heads + head) * num_splits
    maximum = tl.load(sums + (part + first) * 2)
    total = tl.load(sums + (part + first) * 2 + 1)
    weighted = tl.load(weighted_values + (part + first) * HEAD_DIM + column, mask=inside, other=0.0)
    for split in range(first + 1, tl.cdiv(context, SPLIT_LEN)):
        other = tl.load(sums + (part + split) * 2)
        highest = tl.maximum(maximum, other)
        fade, gain = tl.exp2(maximum - highest), tl.exp2(other - highest)
        added = tl.load(weighted_values + (part + split) * HEAD_DIM + column, mask=inside, other=0.0)
        total = total * fade + tl.load(sums + (part + split) * 2 + 1) * gain
        weighted = weighted * fade + added * gain
        maximum = highest
    row = tl.load(rows + index).to(tl.int64)
    target = output + (row * num_heads + head) * HEAD_DIM + column
    tl.store(target, (weighted / total).to(output.dtype.element_ty), mask=inside)
