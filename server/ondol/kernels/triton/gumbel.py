"""The noise of random choices inside kernels: hashes of (seed, choice, position, token id).

Knows nothing about logits. Invariant: bit for bit the hash of `ondol.kernels.sampling`, so that a seed gives
the same tokens whoever computes.
"""

import triton
import triton.language as tl

from ondol.kernels import sampling as reference

TOKEN_MULTIPLIER = tl.constexpr(reference.TOKEN_MULTIPLIER)
STEP_64 = tl.constexpr(reference.STEP_64)
FIRST_64 = tl.constexpr(reference.FIRST_64)
SECOND_64 = tl.constexpr(reference.SECOND_64)
FIRST_32 = tl.constexpr(reference.FIRST_32)
SECOND_32 = tl.constexpr(reference.SECOND_32)


@triton.jit
def gumbel_noise(key, ids):
    """Standard Gumbel noise of a row's key and token ids; as `sampling.gumbel_noise`."""
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    bits = _mix(_mix(ids.to(tl.uint32) * TOKEN_MULTIPLIER) ^ low) + high
    uniform = ((_mix(bits) >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log(-tl.log(uniform))


@triton.jit
def row_key(seed, choice, position):
    """A row's key, uint64; as `SamplingRows.keys`."""
    key = _splitmix64(seed.to(tl.uint64, bitcast=True))
    key = _splitmix64(key ^ choice.to(tl.uint64, bitcast=True))
    return _splitmix64(key ^ position.to(tl.uint64, bitcast=True))


@triton.jit
def _splitmix64(value):
    value += STEP_64
    value = (value ^ (value >> 30)) * FIRST_64
    value = (value ^ (value >> 27)) * SECOND_64
    return value ^ (value >> 31)


@triton.jit
def _mix(bits):
    bits = (bits ^ (bits >> 16)) * FIRST_32
    bits = (bits ^ (bits >> 13)) * SECOND_32
    return bits ^ (bits >> 16)
