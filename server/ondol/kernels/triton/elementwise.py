"""SwiGLU's product, and rotary positions together with the KV cache's write.

Knows slots, nothing about requests. Invariant: every element is computed in float32 and rounded once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.triton.float8 import float8_codes, float8_scales

PRODUCT_BLOCK = 1024
# Heads of a row in one program: enough bytes for a warp, few enough that one row spreads over many.
HEADS_PER_PROGRAM = 4


def silu_mul(gate_up: Tensor) -> Tensor:
    """As `operators.silu_mul`; `gate_up` [T, 2 * I] is contiguous."""
    assert gate_up.is_contiguous(), "rows lie one after the other"
    num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    product = gate_up.new_empty((num_rows, width))
    if num_rows:
        grid = (num_rows, triton.cdiv(width, PRODUCT_BLOCK))
        _silu_mul_kernel[grid](gate_up, product, width, PRODUCT_BLOCK)
    return product


def rotate_and_write_kv(
    heads: Tensor, rotary: tuple[Tensor, Tensor], layer: KVLayer, slots: Tensor
) -> Tensor:
    """As `paged_attention.rotate_and_write_kv`; all tensors are contiguous."""
    cos, sin = rotary
    num_rows, num_all, head_dim = heads.shape
    num_kv_heads = layer.num_kv_heads
    tensors = (heads, cos, sin, *layer.tensors())
    assert all(tensor.is_contiguous() for tensor in tensors), "rows lie one after the other"
    query = torch.empty(
        (num_rows, num_all - 2 * num_kv_heads, head_dim), dtype=heads.dtype, device=heads.device
    )
    if num_rows:
        grid = (num_rows, triton.cdiv(num_all, HEADS_PER_PROGRAM))
        _rotate_kernel[grid](
            *(heads, cos, sin, slots, query, layer.keys, layer.values, layer.key_scales, layer.value_scales),
            NUM_HEADS=query.shape[1],
            NUM_KV_HEADS=num_kv_heads,
            HEAD_DIM=head_dim,
            BLOCK_HEADS=HEADS_PER_PROGRAM,
            BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
            num_warps=1,
        )
    return query


@triton.jit
def _silu_mul_kernel(gate_up: tl.tensor, product: tl.tensor, width: int, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    source = gate_up + row * 2 * width + columns
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + width, mask=inside, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    tl.store(product + row * width + columns, result.to(product.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_kernel(
    heads: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    slots: tl.tensor,
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_scales: tl.tensor | None,
    value_scales: tl.tensor | None,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
) -> None:
    HALF: tl.constexpr = HEAD_DIM // 2
    FIRST_VALUE: tl.constexpr = NUM_HEADS + NUM_KV_HEADS
    NUM_ALL: tl.constexpr = FIRST_VALUE + NUM_KV_HEADS
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_HALF)
    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    # A lane holds one column of the first half and its partner in the second.
    is_column = (column < HALF)[None, :]
    inside = (head < NUM_ALL)[:, None] & is_column
    offsets = head[:, None] * HEAD_DIM + column[None, :]
    first, second = _load_halves(heads + row * NUM_ALL * HEAD_DIM + offsets, inside, HALF)
    cosine = tl.load(cos + row * HEAD_DIM + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + row * HEAD_DIM + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    turns = (head < FIRST_VALUE)[:, None]
    low = tl.where(turns, first * cosine - second * sine, first).to(query.dtype.element_ty)
    high = tl.where(turns, second * cosine + first * sine, second).to(query.dtype.element_ty)

    is_query = (head < NUM_HEADS)[:, None] & is_column
    _store_halves(query + row * NUM_HEADS * HEAD_DIM + offsets, low, high, is_query, HALF)
    # The slot's heads in the cache, counted from the row's first key and its first value.
    slot = tl.load(slots + row).to(tl.int64) * NUM_KV_HEADS
    key_head, value_head = slot + head - NUM_HEADS, slot + head - FIRST_VALUE
    is_key = (head >= NUM_HEADS) & (head < FIRST_VALUE)
    is_value = (head >= FIRST_VALUE) & (head < NUM_ALL)
    if key_scales is not None:
        # What is stored is what a cache without codes would hold, rounded once more.
        low, high = low.to(tl.float32), high.to(tl.float32)
        scales = float8_scales(low, high)
        tl.store(key_scales + key_head, scales, mask=is_key)
        tl.store(value_scales + value_head, scales, mask=is_value)
        low, high = float8_codes(low, scales), float8_codes(high, scales)
    key_target = keys + key_head[:, None] * HEAD_DIM + column[None, :]
    _store_halves(key_target, low, high, is_key[:, None] & is_column, HALF)
    value_target = values + value_head[:, None] * HEAD_DIM + column[None, :]
    _store_halves(value_target, low, high, is_value[:, None] & is_column, HALF)


@triton.jit
def _load_halves(source: tl.tensor, inside: tl.tensor, HALF: tl.constexpr) -> tl.tuple:
    """The first and the second half of some heads, float32."""
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    return first, tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store_halves(
    target: tl.tensor, low: tl.tensor, high: tl.tensor, inside: tl.tensor, HALF: tl.constexpr
) -> None:
    """Write the first and the second half of some heads."""
    tl.store(target, low, mask=inside)
    tl.store(target + HALF, high, mask=inside)
