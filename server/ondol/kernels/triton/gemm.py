"""Hidden states times stored weights, of one matrix or of the experts that rows are routed to.

One kernel for every precision: a program holds a few columns of the result for up to 32 rows, decodes each
piece of weights once in registers and multiplies it with tiles of 16 rows on the tensor cores. Its warps take
turns along K and are added up at the end. Knows nothing about layers.

Invariant: a row's result has the same bits whatever other rows there are. The reduction over K is never
split over programs, its blocks and turns depend on the format alone, and every product is of 16 rows: more
rows are more products of the same shape, or more programs.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.triton.rows import TILE_ROWS, Rows, places, routed
from ondol.kernels.triton.weights import (
    byte_values,
    dot_dtype,
    group_scales,
    is_four_bit,
    wide_values,
    word_values,
)

# K of one product: wide enough for a warp's loads, and never across the end of a scale's group.
MAX_BLOCK_K = 128
# Half of it is what one of the two products over 4-bit codes reduces, and Triton's dot wants 16.
MIN_BLOCK_K = 32
# Blocks of K that a program takes at once, one a warp: a matrix of 4,096 columns has too few tiles of 16 for
# one warp each to fill a GPU.
SLICES = 4
# Above this many columns there are enough programs for a GPU when each takes 32 of them.
MANY_COLUMNS = 8192

_TILE_ROWS = tl.constexpr(TILE_ROWS)
_SLICES = tl.constexpr(SLICES)
_MAX_BLOCK_K = tl.constexpr(MAX_BLOCK_K)


def block_k_for(group_size: int | None) -> int | None:
    """K of one product for a group size; None where groups do not fit and the kernel cannot be used."""
    if group_size is None:
        return MAX_BLOCK_K
    if group_size % MAX_BLOCK_K == 0:
        return MAX_BLOCK_K
    is_power = group_size & (group_size - 1) == 0
    return group_size if is_power and MIN_BLOCK_K <= group_size < MAX_BLOCK_K else None


def multiply(
    hidden: Tensor,
    weights: dict[str, Any],
    out: Tensor,
    rows: Rows,
    *,
    bias: Tensor | None = None,
    column_order: Tensor | None = None,
    is_gated: bool = False,
) -> None:
    """Write hidden [T, K] times the weights to `out`.

    Args:
        hidden: contiguous.
        weights: from `weights.matrix_arguments` or `stack_arguments`; `block_k_for` its group is not None.
        out: [rows or pairs, columns], its columns contiguous.
        rows: which rows by which weights.
        bias: [columns].
        column_order: [.., K] int64, see `QuantizedMatrix`.
        is_gated: the matrix holds gate rows, then up rows; write silu(gate) * up, half as many columns.
    """
    num_out = weights["NUM_OUT"]
    block_n = 32 if num_out > MANY_COLUMNS else 16
    grid = (rows.num_tiles, triton.cdiv(num_out, block_n))
    _multiply_kernel[grid](
        hidden, out, bias, column_order, rows.experts, rows.pairs, rows.tiles, hidden.shape[0], out.stride(0),
        **weights, TOP_K=rows.top_k, IS_GATED=is_gated, DOT=dot_dtype(hidden.dtype),
        BLOCK_N=block_n, BLOCK_K=block_k_for(weights["GROUP"] or None), ROW_TILES=rows.row_tiles,
        num_warps=SLICES, num_stages=3 if hidden.itemsize == 2 else 2,
    )  # fmt: skip


# Triton would compile anew for one row and for multiples of 16, and then in the middle of an answer.
@triton.jit(do_not_specialize=["num_rows"])
def _multiply_kernel(
    hidden, out, bias, column_order, experts, pairs, tiles, num_rows, out_stride,
    codes, scales, zeros, codebook, absmax, offsets, nested_values,
    NUM_OUT: tl.constexpr, NUM_IN: tl.constexpr, KIND: tl.constexpr, GROUP: tl.constexpr,
    PART_ROWS: tl.constexpr, PART_BLOCKS: tl.constexpr, NUM_BLOCKS: tl.constexpr,
    TOP_K: tl.constexpr, IS_GATED: tl.constexpr, DOT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, ROW_TILES: tl.constexpr,
):  # fmt: skip
    expert, first, count = routed(experts, tiles, num_rows, ROW_TILES)
    if expert < 0:
        return
    numbers, are_rows = places(pairs, first, count, ROW_TILES)
    columns, is_column = _columns(NUM_OUT, IS_GATED, BLOCK_N)
    NARROW: tl.constexpr = tl.bfloat16 if hidden.dtype.element_ty == tl.bfloat16 else tl.float16
    NUM_GROUPS: tl.constexpr = (NUM_IN + GROUP - 1) // GROUP if GROUP > 0 else 1
    sums = (tl.zeros((_SLICES, _TILE_ROWS, BLOCK_N), tl.float32),) * ROW_TILES
    for start in range(0, NUM_IN, _SLICES * BLOCK_K):
        begins = start + tl.arange(0, _SLICES) * BLOCK_K
        group = (begins // GROUP if GROUP > 0 else begins * 0)[:, None]
        is_scaled = is_column[None, :] & (group < NUM_GROUPS)
        weights = _weight_tiles(
            codes, zeros, codebook, expert, columns[None, :], is_scaled, begins[:, None], group,
            NUM_OUT, NUM_IN, NUM_GROUPS, KIND, NARROW, DOT, BLOCK_K,
        )  # fmt: skip
        source, is_k = _inputs(column_order, expert, begins, NUM_IN, BLOCK_K)
        if GROUP > 0:
            scale = group_scales(
                scales, absmax, offsets, nested_values, expert, columns[None, :], group, is_scaled,
                NUM_OUT, NUM_GROUPS, PART_ROWS, PART_BLOCKS, NUM_BLOCKS,
            )[:, None, :]  # fmt: skip
        new = ()
        for tile in tl.static_range(ROW_TILES):
            pointers = (hidden + numbers[tile] // TOP_K * NUM_IN)[None, :, None] + source
            inputs = tl.load(pointers, mask=are_rows[tile][None, :, None] & is_k, other=0.0).to(DOT)
            if GROUP > 0:
                total = sums[tile] + _product(tl.zeros_like(sums[tile]), inputs, weights, BLOCK_K) * scale
            else:
                total = _product(sums[tile], inputs, weights, BLOCK_K)
            new = new + (total,)  # type: ignore[assignment]
        sums = new
    for tile in tl.static_range(ROW_TILES):
        total = tl.sum(sums[tile], axis=0)
        if scales is not None and GROUP == 0:
            row_scale = tl.load(scales + expert * NUM_OUT + columns, mask=is_column, other=0.0)
            total *= row_scale.to(tl.float32)[None, :]
        if bias is not None:
            total += tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)[None, :]
        rows = out + numbers[tile] * out_stride
        _store(rows, total, are_rows[tile], NUM_OUT, IS_GATED, BLOCK_N)


@triton.jit
def _columns(NUM_OUT: tl.constexpr, IS_GATED: tl.constexpr, BLOCK_N: tl.constexpr):
    """Rows of the matrix that this program reads, and which exist: a run, or gate and up rows by turns."""
    index = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = (index % 2) * (NUM_OUT // 2) + index // 2 if IS_GATED else index
    return columns, index < NUM_OUT


@triton.jit
def _inputs(column_order, expert, begins, NUM_IN: tl.constexpr, BLOCK_K: tl.constexpr):
    """The hidden states' columns of each block of the codes' columns, [slices, 1, k], and which exist."""
    source = begins[:, None, None] + tl.arange(0, BLOCK_K)[None, None, :]
    is_k = source < NUM_IN
    if column_order is not None:
        source = tl.load(column_order + expert * NUM_IN + source, mask=is_k, other=0)
    return source, is_k


@triton.jit
def _weight_tiles(
    codes, zeros, codebook, expert, columns, is_scaled, begins, group,
    NUM_OUT: tl.constexpr, NUM_IN: tl.constexpr, NUM_GROUPS: tl.constexpr,
    KIND: tl.constexpr, NARROW: tl.constexpr, DOT: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Unscaled weights [slices, k, columns] of a block each: tiles of every k, every second or every eighth.

    `_input_parts` cuts the hidden states likewise.
    """
    row = expert * NUM_OUT + columns
    zero = None
    if zeros is not None:
        zero = tl.load(zeros + row * NUM_GROUPS + group, mask=is_scaled, other=0)[:, None, :]
    # Elements of a row, and the weights in each: bytes, words of eight codes, or whole weights.
    PER_ELEMENT: tl.constexpr = _weights_per_element(KIND, BLOCK_K)
    ROW_LENGTH: tl.constexpr = (NUM_IN + PER_ELEMENT - 1) // PER_ELEMENT
    element = (begins // PER_ELEMENT)[:, :, None] + tl.arange(0, BLOCK_K // PER_ELEMENT)[None, :, None]
    if PER_ELEMENT == 8:
        codes = codes.to(tl.pointer_type(tl.int32))
    is_stored = (element < ROW_LENGTH) & (columns < NUM_OUT)[:, None, :]
    stored = tl.load(codes + row[:, None, :] * ROW_LENGTH + element, mask=is_stored, other=0.0)
    if PER_ELEMENT == 8:
        tiles = word_values(stored, zero, NARROW, DOT)
    elif PER_ELEMENT == 2:
        tiles = byte_values(stored, codebook, zero, NARROW, DOT)
    else:
        tiles = (wide_values(stored, zero, DOT),)
    return tiles


@triton.constexpr_function
def _weights_per_element(kind: str, block_k: int) -> int:
    # A product over every eighth k of a shorter block would be too short for Triton's dot.
    return (8 if kind == "int4" and block_k == MAX_BLOCK_K else 2) if is_four_bit(kind) else 1


@triton.jit
def _input_parts(inputs, NUM_PARTS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Hidden states [slices, 16, k] cut as `_weight_tiles` cuts the weights."""
    if NUM_PARTS == 1:
        parts = (inputs,)
    elif NUM_PARTS == 2:
        parts = tl.split(tl.reshape(inputs, (_SLICES, _TILE_ROWS, BLOCK_K // 2, 2)))
    else:
        even, odd = tl.split(tl.reshape(inputs, (_SLICES, _TILE_ROWS, BLOCK_K // 8, 2, 2, 2)))
        k04, k26 = tl.split(even)
        k15, k37 = tl.split(odd)
        parts = tl.split(k15) + tl.split(k04) + tl.split(k37) + tl.split(k26)
    return parts


@triton.jit
def _product(total, inputs, weights, BLOCK_K: tl.constexpr):
    """`total` plus inputs [slices, 16, k] times the weights from `_weight_tiles`.

    Float32 is multiplied as three products of its leading and trailing bits, which tensor cores can do.
    """
    parts = _input_parts(inputs, len(weights), BLOCK_K)
    for index in tl.static_range(len(weights)):
        total = tl.dot(parts[index], weights[index], total, input_precision="tf32x3")
    return total


@triton.jit
def _store(
    rows, total, is_row, NUM_OUT: tl.constexpr, IS_GATED: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Write a tile to the places `rows`; of gate and up columns by turns their product."""
    if IS_GATED:
        gate, up = tl.split(tl.reshape(total, (_TILE_ROWS, BLOCK_N // 2, 2)))
        column = tl.program_id(1) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
        mask = is_row[:, None] & (column < NUM_OUT // 2)[None, :]
        product = gate * tl.sigmoid(gate) * up
        tl.store(rows[:, None] + column[None, :], product.to(rows.dtype.element_ty), mask=mask)
    else:
        column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = is_row[:, None] & (column < NUM_OUT)[None, :]
        tl.store(rows[:, None] + column[None, :], total.to(rows.dtype.element_ty), mask=mask)
