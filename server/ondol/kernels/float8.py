"""Vectors in 8-bit floating point (e4m3, arXiv:2209.05433) with a scale each: the torch reference.

A code is an e4m3 number, but it is not read as one: its bits, moved to where a float16 has them, are that
number over 256, exactly, subnormal ones too. That takes a shift and a mask on any device; the 256 is part of
the scale. Knows nothing about caches. Invariants: codes are finite, for the scale tells what is not; and a
vector's largest element becomes the largest code, so that no outlier is cut off.
"""

import torch
from torch import Tensor

MAX_CODE = 448.0
# What a code's bits stand for, read as a float16's, is the e4m3 number over this: the exponents' biases, 15
# and 7, differ by 8.
CODE_UNIT = 256.0
# The smallest normal float16: a scale below would be rounded coarsely. Of a vector under 1e-4 nobody needs
# more than an absolute precision of 2**-32.
MIN_SCALE = 2.0**-14
# A code as a signed 16-bit number, moved up by 7, has its sign in both of the upper bits; the second of them
# belongs to a float16's exponent.
EXPONENT_SHIFT = 7
KEPT_BITS = ~(1 << 14)


def quantize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Round to the nearest codes, ties to even.

    Args:
        vectors: [..., D] of any float dtype.

    Returns:
        codes [..., D] uint8, and the scales [...] float16 that `dequantize` takes. The scale of a vector that
        holds something not finite, or more than 114,000, is not finite either.
    """
    wide = vectors.float()
    scales = wide.abs().amax(dim=-1) * (CODE_UNIT / MAX_CODE)
    scales = torch.where(scales < MIN_SCALE, MIN_SCALE, scales).half()
    numbers = wide * (CODE_UNIT / scales.float())[..., None]
    # A scale that is not finite tells enough; the codes beside it have to be some.
    codes = numbers.nan_to_num(0.0).clamp(-MAX_CODE, MAX_CODE).to(torch.float8_e4m3fn)
    return codes.view(torch.uint8), scales


def dequantize(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantize` gave, [..., D] in `dtype`; NaN throughout where a scale is not finite."""
    bits = (codes.view(torch.int8).to(torch.int16) << EXPONENT_SHIFT) & KEPT_BITS
    numbers = bits.view(torch.float16).float()
    numbers *= scales.float()[..., None]
    return numbers.to(dtype)
