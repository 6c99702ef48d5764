"""Codes of 8-bit floating point in kernels: integer arithmetic alone, so that every card does it alike.

What codes and scales mean: `kernels.float8`. Knows nothing about caches. Invariant: the codes and scales are
those of the torch reference, bit for bit where the card divides exactly.
"""

import triton
import triton.language as tl

from ondol.kernels.float8 import CODE_UNIT, EXPONENT_SHIFT, KEPT_BITS, MAX_CODE, MIN_SCALE

_CODE_UNIT = tl.constexpr(CODE_UNIT)
_MAX_CODE = tl.constexpr(MAX_CODE)
_SCALE_SHARE = tl.constexpr(CODE_UNIT / MAX_CODE)
_MIN_SCALE = tl.constexpr(MIN_SCALE)
_EXPONENT_SHIFT = tl.constexpr(EXPONENT_SHIFT)
_KEPT_BITS = tl.constexpr(KEPT_BITS)


@triton.jit
def float8_numbers(codes: tl.tensor) -> tl.tensor:
    """uint8 codes as float16 numbers, exactly; their scale is to be multiplied to what is made of them."""
    bits = codes.to(tl.int8, bitcast=True).to(tl.int16)
    return ((bits << _EXPONENT_SHIFT) & _KEPT_BITS).to(tl.float16, bitcast=True)


@triton.jit
def float8_values(codes, DTYPE: tl.constexpr):
    """uint8 codes as the numbers that they are, exactly: 16-bit dtypes hold them all. NaN counts as 480."""
    return float8_numbers(codes).to(DTYPE) * _CODE_UNIT


@triton.jit
def float8_scales(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Scales [M] float16 of vectors whose halves are the rows of `low` and `high`, [M, N] float32 each."""
    # Positive floats are ordered as their bits are, NaN above all; a maximum of floats would lose it.
    low_bits = low.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    high_bits = high.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    largest = tl.max(tl.maximum(low_bits, high_bits), axis=1).to(tl.float32, bitcast=True)
    scales = largest * _SCALE_SHARE
    return tl.where(scales < _MIN_SCALE, _MIN_SCALE, scales).to(tl.float16)


@triton.jit
def float8_codes(vectors: tl.tensor, scales: tl.tensor) -> tl.tensor:
    """The nearest codes, ties to even, uint8: of vectors [M, N] float32 with scales [M] float16."""
    numbers = vectors * (1.0 / scales.to(tl.float32) * _CODE_UNIT)[:, None]
    negative = numbers.to(tl.int32, bitcast=True) >> 31 & 0x80
    # What is not finite has such a scale, and any code will do.
    number = tl.minimum(tl.abs(numbers), _MAX_CODE)
    bits = number.to(tl.int32, bitcast=True)
    # Normal numbers: round the float32's mantissa to 3 bits; the biases of the exponents differ by 120.
    normal = ((bits + 0x7FFFF + (bits >> 20 & 1)) >> 20) - (120 << 3)
    # Below 2**-6 codes count in 2**-9, and so do the bits of a float32 between 2**14 and 2**15.
    subnormal = (number + 16384.0).to(tl.int32, bitcast=True) & 0xF
    code = tl.where(number < 2.0**-6, subnormal, normal) & 0x7F
    return (code | negative).to(tl.uint8)
