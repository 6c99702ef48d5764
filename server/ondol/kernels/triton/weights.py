"""Stored weights as kernels read them: codes to values, and the scales of groups, nested ones too.

Shared by everything that multiplies by quantized matrices or spreads them out. Knows the one internal layout
of `ondol.kernels.quantized` and nothing about what a matrix is multiplied with. Invariant: what a code stands
for is computed here only, so that fused products and dequantized matrices hold the same weights.

Nested scales stay nested in memory and are expanded in the kernel: of a group of 64 weights one byte and
4 / 256 of a block's float32 are read instead of a float32, 33 bytes instead of 36 with the codes, for one
more lookup per group.
"""

from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.quantized import INT4_ZERO, NESTED_BLOCK_SIZE, QuantizedMatrix
from ondol.kernels.triton.float8 import float8_values

_INT4_ZERO = tl.constexpr(INT4_ZERO)
_NESTED_BLOCK_SIZE = tl.constexpr(NESTED_BLOCK_SIZE)


def matrix_arguments(matrix: QuantizedMatrix, dtype: torch.dtype) -> dict[str, Any]:
    """Kernel arguments that describe a quantized matrix or a stack of them.

    Args:
        matrix: any format; a flat one appears as its single row.
        dtype: of the values of nf4's and fp4's codes.
    """
    fmt, nested = matrix.fmt, matrix.nested
    num_out = sum(matrix.part_rows)
    is_float8 = fmt.kind == "fp8_e4m3"
    arguments = {
        # Not as floats: Triton knows none of 8 bits on cards older than 8.9.
        "codes": matrix.codes.view(torch.uint8) if is_float8 else matrix.codes,
        "scales": matrix.scales if nested is None else nested.codes,
        "zeros": matrix.zeros,
        "codebook": matrix.codebook(dtype) if fmt.kind in ("nf4", "fp4") else None,
        "absmax": None if nested is None else nested.absmax,
        "offsets": None if nested is None else nested.offsets,
        "nested_values": None if nested is None else nested.values,
        "NUM_OUT": num_out,
        "NUM_IN": matrix.num_in,
        "KIND": fmt.kind,
        "GROUP": fmt.group_size or 0,
    }
    num_blocks = () if nested is None else nested.num_blocks
    return arguments | {
        "PART_ROWS": tuple(accumulate(matrix.part_rows[:-1], initial=0)),
        "PART_BLOCKS": tuple(accumulate(num_blocks[:-1], initial=0)),
        "NUM_BLOCKS": sum(num_blocks),
    }


def stack_arguments(stack: Tensor) -> dict[str, Any]:
    """The same for weights as they are: [num_experts, rows, K]."""
    absent = ("scales", "zeros", "codebook", "absmax", "offsets", "nested_values")
    shape = {"NUM_OUT": stack.shape[1], "NUM_IN": stack.shape[2], "KIND": "plain", "GROUP": 0}
    return {"codes": stack, **dict.fromkeys(absent)} | shape | {
        "PART_ROWS": (0,), "PART_BLOCKS": (0,), "NUM_BLOCKS": 0
    }  # fmt: skip


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """Dtype of a product's operands for hidden states of a dtype."""
    if dtype == torch.bfloat16:
        # The interpreter takes bfloat16 for integers; in float32 the operands have the same values.
        return tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16
    return tl.float16 if dtype == torch.float16 else tl.float32


@triton.constexpr_function
def is_four_bit(kind: str) -> bool:
    """Whether two codes lie in a byte."""
    return kind in ("int4", "nf4", "fp4")


@triton.constexpr_function
def integer_bits(dtype: tl.dtype) -> int:
    """Bits of the number in a 16-bit dtype whose last bits count ones: 128, or 1024 in float16."""
    return 0x4300 if dtype == tl.bfloat16 else 0x6400


@triton.constexpr_function
def integer_base(dtype: tl.dtype) -> float:
    """That number."""
    return 128.0 if dtype == tl.bfloat16 else 1024.0


@triton.jit
def nibble_values(bits, zeros, NARROW: tl.constexpr, DTYPE: tl.constexpr):
    """(code - zero) in DTYPE of 4-bit integers that lie in the last bits of 16.

    Set below the exponent of `integer_bits` a code is a number already: no conversion is needed, which would
    cost a GPU more than everything else here.

    Args:
        bits: uint16 numbers `integer_bits` + code, seen as NARROW.
        zeros: int16 that broadcasts to them, or None for the symmetric format's.
    """
    if zeros is None:
        lowered = bits.to(NARROW, bitcast=True).to(DTYPE) - (integer_base(NARROW) + _INT4_ZERO)
    else:
        lowered = bits.to(NARROW, bitcast=True).to(DTYPE) - (zeros + integer_base(NARROW)).to(DTYPE)
    return lowered.to(DTYPE)


@triton.jit
def byte_values(
    packed, codebook, zeros, NARROW: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """What the codes of the even and of the odd k of each byte stand for before they are scaled, in DTYPE.

    Args:
        packed: bytes, of any shape.
        codebook: `QuantizedMatrix.codebook` in float32 or NARROW; None for integers.
        zeros: int16 that broadcasts to the bytes, or None.
    """
    if codebook is None:
        even = nibble_values((packed >> 4).to(tl.uint16) | integer_bits(NARROW), zeros, NARROW, DTYPE)
        odd = nibble_values((packed & 0xF).to(tl.uint16) | integer_bits(NARROW), zeros, NARROW, DTYPE)
    elif codebook.dtype.element_ty == tl.float32:
        even = tl.load(codebook + (packed >> 4).to(tl.int32)).to(DTYPE)
        odd = tl.load(codebook + (packed & 0xF).to(tl.int32)).to(DTYPE)
    else:
        pair = tl.load(codebook + packed.to(tl.int32))
        even = pair.to(tl.uint16).to(NARROW, bitcast=True).to(DTYPE)
        odd = (pair >> 16).to(tl.uint16).to(NARROW, bitcast=True).to(DTYPE)
    return even, odd


@triton.jit
def word_values(words, zeros, NARROW: tl.constexpr, DTYPE: tl.constexpr):
    """(code - zero) in DTYPE of 4-bit integers, eight to an int32: the k 1, 5, 0, 4, 3, 7, 2, 6 of each word.

    Two codes are taken out of a word at once, which halves what bytes would cost.
    """
    values = ()
    for index in tl.static_range(4):
        pair = ((words >> (4 * index)) & 0x000F000F) | (integer_bits(NARROW) * 0x00010001)
        low = nibble_values(pair.to(tl.uint16), zeros, NARROW, DTYPE)
        high = nibble_values((pair >> 16).to(tl.uint16), zeros, NARROW, DTYPE)
        values = values + (low, high)  # type: ignore[assignment]
    return values


@triton.jit
def wide_values(codes, zeros, DTYPE: tl.constexpr):
    """What 8-bit codes, or plain weights, stand for before they are scaled, in DTYPE.

    Args:
        codes: int8 integers, uint8 codes of 8-bit floating point, or weights as they are.
        zeros: int16 that broadcasts to integers, or None.
    """
    if codes.dtype == tl.uint8:
        values = float8_values(codes, DTYPE)
    elif zeros is None:
        values = codes.to(DTYPE)
    else:
        # At most 255 in magnitude, which every dtype holds.
        values = (codes.to(tl.int16) - zeros).to(DTYPE)
    return values


@triton.jit
def group_scales(
    scales, absmax, offsets, nested_values, expert, rows, groups, valid,
    NUM_OUT: tl.constexpr, NUM_GROUPS: tl.constexpr,
    PART_ROWS: tl.constexpr, PART_BLOCKS: tl.constexpr, NUM_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Scales of (row, group) in float32, where valid; rows and groups broadcast to each other."""
    stored = tl.load(
        scales + (expert.to(tl.int64) * NUM_OUT + rows) * NUM_GROUPS + groups, mask=valid, other=0
    )
    if absmax is None:
        expanded = stored.to(tl.float32)
    else:
        # Every source tensor has blocks and an offset of its own.
        part = rows * 0
        first_row = rows * 0
        first_block = rows * 0
        for index in tl.static_range(1, len(PART_ROWS)):
            is_past = rows >= PART_ROWS[index]
            part = tl.where(is_past, index, part)
            first_row = tl.where(is_past, PART_ROWS[index], first_row)
            first_block = tl.where(is_past, PART_BLOCKS[index], first_block)
        block = first_block + ((rows - first_row) * NUM_GROUPS + groups) // _NESTED_BLOCK_SIZE
        factor = tl.load(absmax + expert * NUM_BLOCKS + block, mask=valid, other=0.0)
        offset = tl.load(offsets + expert * len(PART_ROWS) + part)
        expanded = tl.load(nested_values + stored.to(tl.int32)) * factor + offset
    return expanded
