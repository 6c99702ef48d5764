"""One tile of paged keys and values: the step that decode and prefill attention share.

It is here alone that the cache is read, and that codes become numbers.

The running softmax is that of online softmax (arXiv:1805.02867) in base 2. Knows block tables, nothing about
how rows were chosen. Invariant: a key at or beyond `stop` is not read, so whatever a block's former owner
left there, NaN too, reaches no sum.
"""

import triton
import triton.language as tl

from ondol.kernels.triton.float8 import float8_numbers

LOG2_E = 1.4426950408889634
# The smallest matrix product that tensor cores do.
MIN_DOT_ROWS = 16


@triton.jit
def attend_tile(
    query: tl.tensor,
    state: tl.tuple,
    cache: tl.tuple,
    start: int,
    stop: int,
    visible: tl.tuple,
    kv_head: int,
    scale: float,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> tl.tuple:
    """Attend to the positions [start, start + BLOCK_N) that are before `stop`.

    Args:
        query: [M, BLOCK_D].
        state: running maximum [M] and sum [M] of the powers of two, and weighted values [M, BLOCK_D].
        cache: pointers to keys, values, their scales (None without codes) and the request's block table.
        visible: oldest and newest position that each row sees, [M] each.
        scale: factor on the scores, log2(e) included.
    """
    maximum, total, weighted = state
    keys, values, key_scales, value_scales, table = cache
    oldest, newest = visible
    position, column = start + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    is_key = position < stop
    block = tl.load(table + position // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
    slot = block * BLOCK_SIZE + position % BLOCK_SIZE
    head = slot * NUM_KV_HEADS + kv_head
    offsets = head[:, None] * HEAD_DIM + column[None, :]
    inside = is_key[:, None] & (column < HEAD_DIM)[None, :]
    scores = _scores(query, tl.load(keys + offsets, mask=inside, other=0), key_scales, head, is_key, scale)
    seen = (position[None, :] >= oldest[:, None]) & (position[None, :] <= newest[:, None])
    scores = tl.where(seen, scores, float("-inf"))
    highest = tl.maximum(maximum, tl.max(scores, axis=1))
    # A row that has seen no key yet: -inf minus -inf would be NaN.
    pivot = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(scores - pivot[:, None])
    fade = tl.exp2(maximum - pivot)
    total = total * fade + tl.sum(weights, axis=1)
    value = tl.load(values + offsets, mask=inside, other=0)
    if value_scales is not None:
        weights *= _head_scales(value_scales, head, is_key)
        # Scaled weights need bfloat16's range: those of old keys would be subnormal in float16.
        value = float8_numbers(value).to(tl.float32 if query.dtype == tl.float32 else tl.bfloat16)
    added = tl.dot(weights.to(value.dtype), value, weighted * fade[:, None], input_precision="tf32x3")
    return highest, total, added


@triton.jit
def _scores(
    query: tl.tensor,
    key: tl.tensor,
    key_scales: tl.tensor | None,
    head: tl.tensor,
    is_key: tl.tensor,
    scale: float,
) -> tl.tensor:
    """[M, BLOCK_N] float32, of the tile's keys [BLOCK_N, BLOCK_D] or their codes."""
    if key_scales is not None:
        key = float8_numbers(key).to(query.dtype)
    scores = tl.dot(query, tl.trans(key), input_precision="tf32x3") * scale
    if key_scales is not None:
        # A key's scale is a factor of its scores: cheaper there than on every element of the key.
        scores *= _head_scales(key_scales, head, is_key)
    return scores


@triton.jit
def _head_scales(scales: tl.tensor, head: tl.tensor, is_key: tl.tensor) -> tl.tensor:
    """[1, BLOCK_N] float32."""
    return tl.load(scales + head, mask=is_key, other=0.0).to(tl.float32)[None, :]
