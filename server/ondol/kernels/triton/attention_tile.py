"""One tile of paged keys and values: the step that decode and prefill attention share.

The running softmax is that of online softmax (arXiv:1805.02867) in base 2. Knows block tables, nothing about
how rows were chosen. Invariant: a key at or beyond `stop` is not read, so whatever a block's former owner
left there, NaN too, reaches no sum.
"""

import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


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
        cache: pointers to keys, values and the request's block table.
        visible: oldest and newest position that each row sees, [M] each.
        scale: factor on the scores, log2(e) included.
    """
    maximum, total, weighted = state
    keys, values, table = cache
    oldest, newest = visible
    position = start + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    is_key = position < stop
    block = tl.load(table + position // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
    slot = block * BLOCK_SIZE + position % BLOCK_SIZE
    offsets = (slot * NUM_KV_HEADS + kv_head)[:, None] * HEAD_DIM + column[None, :]
    inside = is_key[:, None] & (column < HEAD_DIM)[None, :]
    key = tl.load(keys + offsets, mask=inside, other=0.0)
    scores = tl.dot(query, tl.trans(key), input_precision="tf32x3") * scale
    seen = (position[None, :] >= oldest[:, None]) & (position[None, :] <= newest[:, None])
    scores = tl.where(seen, scores, float("-inf"))

    highest = tl.maximum(maximum, tl.max(scores, axis=1))
    # A row that has seen no key yet: -inf minus -inf would be NaN.
    pivot = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(scores - pivot[:, None])
    fade = tl.exp2(maximum - pivot)
    value = tl.load(values + offsets, mask=inside, other=0.0)
    added = tl.dot(weights.to(value.dtype), value, weighted * fade[:, None], input_precision="tf32x3")
    return highest, total * fade + tl.sum(weights, axis=1), added
