"""Quantized matrices on the device: the fused product for few rows, dequantize and matmul for many.

The same operators as `ondol.kernels.quantized`, the reference. Knows nothing about checkpoints.

Up to 64 rows a step is bound by the bytes of the weights, which the fused kernel reads once; above that it is
bound by arithmetic, and the vendor's dense GEMM over a dequantized copy is faster. A matrix whose groups do
not fit the fused kernel's blocks (sizes that are no power of two, flat blocks, rows that are no multiple of
eight) always takes that way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.operators import Linear, linear
from ondol.kernels.quantized import INT4_ZERO, QuantizedMatrix
from ondol.kernels.triton.gemm import block_k_for, multiply
from ondol.kernels.triton.rows import Rows
from ondol.kernels.triton.weights import byte_values, group_scales, is_four_bit, matrix_arguments, wide_values

MAX_FUSED_ROWS = 64
# Weights that one program dequantizes.
DEQUANTIZE_BLOCK = 1024

_INT4_ZERO = tl.constexpr(INT4_ZERO)


def is_flat(matrix: QuantizedMatrix) -> bool:
    """Whether groups run on across the ends of rows."""
    return matrix.shape[1] != matrix.num_in


def can_fuse(matrix: QuantizedMatrix) -> bool:
    """Whether the fused kernel can read it."""
    # Codes of 4 bits are read eight at a time.
    is_whole = matrix.fmt.bits == 8 or matrix.num_in % 8 == 0
    return block_k_for(matrix.fmt.group_size) is not None and is_whole and not is_flat(matrix)


def quantized_linear(
    hidden: Tensor,
    matrix: QuantizedMatrix,
    bias: Tensor | None,
    *,
    max_fused_rows: int = MAX_FUSED_ROWS,
    linear: Linear = linear,
) -> Tensor:
    """hidden [.., K] times the matrix, plus bias: [.., rows], in the dtype of `hidden`.

    Args:
        hidden: float32, bfloat16 or float16.
        matrix: a plain one, no stack.
        bias: [rows].
        max_fused_rows: more rows than these are multiplied by a dequantized copy; the two ways differ in
            their last bits.
        linear: what multiplies by such a copy.
    """
    rows = hidden.reshape(-1, hidden.shape[-1])
    if rows.shape[0] > max_fused_rows or not can_fuse(matrix):
        return linear(matrix.inputs(hidden), dequantize(matrix, hidden.dtype), bias)
    out = torch.empty((rows.shape[0], matrix.shape[0]), dtype=hidden.dtype, device=hidden.device)
    multiply(
        rows.contiguous(), matrix_arguments(matrix, hidden.dtype), out, Rows.contiguous(rows.shape[0]),
        bias=bias, column_order=matrix.column_order,
    )  # fmt: skip
    return out.view(*hidden.shape[:-1], matrix.shape[0])


def dequantize(
    matrix: QuantizedMatrix, dtype: torch.dtype, expert: int | None = None, out: Tensor | None = None
) -> Tensor:
    """[rows, K] in `dtype`, as `QuantizedMatrix.dequantize`; written to `out` if that is given."""
    if out is None:
        out = torch.empty(matrix.shape, dtype=dtype, device=matrix.packed.device)
    arguments = matrix_arguments(matrix, torch.float32)
    # Along one dimension: of the others a GPU has 65,535, and a flat matrix is a single row of any length.
    num_programs = arguments["NUM_OUT"] * triton.cdiv(matrix.num_in, DEQUANTIZE_BLOCK)
    _dequantize_kernel[(num_programs,)](out, expert or 0, **arguments, BLOCK=DEQUANTIZE_BLOCK, num_warps=4)
    return out


@triton.jit(do_not_specialize=["expert"])
def _dequantize_kernel(
    out, expert, codes, scales, zeros, codebook, absmax, offsets, nested_values,
    NUM_OUT: tl.constexpr, NUM_IN: tl.constexpr, KIND: tl.constexpr, GROUP: tl.constexpr,
    PART_ROWS: tl.constexpr, PART_BLOCKS: tl.constexpr, NUM_BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    NUM_BLOCKS_OF_ROW: tl.constexpr = (NUM_IN + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // NUM_BLOCKS_OF_ROW).to(tl.int64)
    stack_row = expert.to(tl.int64) * NUM_OUT + row
    first = tl.program_id(0) % NUM_BLOCKS_OF_ROW * BLOCK
    k = first + tl.arange(0, BLOCK)
    is_k = k < NUM_IN
    NUM_GROUPS: tl.constexpr = (NUM_IN + GROUP - 1) // GROUP if GROUP > 0 else 1
    group = k // GROUP if GROUP > 0 else k * 0
    if is_four_bit(KIND):
        ROW_BYTES: tl.constexpr = (NUM_IN + 1) // 2
        byte = first // 2 + tl.arange(0, BLOCK // 2)
        packed = tl.load(codes + stack_row * ROW_BYTES + byte, mask=byte < ROW_BYTES, other=0)
        even, odd = byte_values(packed, codebook, None, tl.float16, tl.float32)
        value = tl.interleave(even, odd)
        if zeros is not None:
            # Without zeros the middle has been taken off.
            value += _INT4_ZERO
    else:
        value = wide_values(tl.load(codes + stack_row * NUM_IN + k, mask=is_k, other=0.0), None, tl.float32)
    if zeros is not None:
        value -= tl.load(zeros + stack_row * NUM_GROUPS + group, mask=is_k, other=0).to(tl.float32)
    scale = group_scales(
        scales, absmax, offsets, nested_values, expert, row, group, is_k,
        NUM_OUT, NUM_GROUPS, PART_ROWS, PART_BLOCKS, NUM_BLOCKS,
    )  # fmt: skip
    tl.store(out + row * NUM_IN + k, (value * scale).to(out.dtype.element_ty), mask=is_k)
