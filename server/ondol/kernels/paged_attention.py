"""Attention over a paged KV cache for a flat ragged batch: the torch reference.

Knows block numbers and row ranges, nothing about requests or models. Runs on any device; fast
kernels must agree with it.

A batch is a flat sequence of T rows. Decodes (one row each) are computed together in groups of
similar context length, so that padding never more than doubles the work; each prefill chunk is
computed by itself over its whole context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class PagedKVCache:
    """Keys and values of every layer.

    Attributes:
        keys, values: per layer, [num_blocks, block_size, num_kv_heads, head_dim].
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return int(self.keys[0].shape[1])


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode rows of similar context length.

    Attributes:
        rows: [B] row numbers in the flat batch, int64.
        block_tables: [B, num_blocks] block numbers, padded with 0, int64.
        context_lens: [B] tokens to attend to, the row's own included, int64.
    """

    rows: Tensor
    block_tables: Tensor
    context_lens: Tensor


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """One request's chunk: `num_rows` rows from `first_row`, at positions [start, start + num_rows).

    Attributes:
        block_ids: [num_blocks] the blocks that hold positions [0, start + num_rows), int64.
    """

    first_row: int
    num_rows: int
    start: int
    block_ids: Tensor


@dataclass(slots=True)
class AttentionMetadata:
    """Where every row's keys and values go, and what it attends to; the same for all layers.

    Attributes:
        slots: [T] flat cache position (block * block_size + offset) of each row, int64.
        decode_groups, prefills: together they cover every row once.
    """

    slots: Tensor
    decode_groups: Sequence[DecodeGroup]
    prefills: Sequence[PrefillSpan]
    _masks: dict[tuple[str, int, int | None], Tensor] = field(default_factory=dict)

    def decode_mask(self, index: int, num_keys: int, window: int | None) -> Tensor:
        """[B, 1, 1, num_keys] bool: which keys each decode row of a group sees."""
        key = ("decode", index, window)
        if key not in self._masks:
            last = self.decode_groups[index].context_lens[:, None]
            positions = torch.arange(num_keys, device=last.device)[None, :]
            visible = positions < last
            if window is not None:
                visible &= positions >= last - window
            self._masks[key] = visible[:, None, None, :]
        return self._masks[key]

    def prefill_mask(self, index: int, window: int | None) -> Tensor:
        """[num_rows, num_keys] bool: causal from the span's start, within the sliding window."""
        key = ("prefill", index, window)
        if key not in self._masks:
            span = self.prefills[index]
            stop = span.start + span.num_rows
            queries = torch.arange(span.start, stop, device=span.block_ids.device)[:, None]
            positions = torch.arange(stop, device=span.block_ids.device)[None, :]
            visible = positions <= queries
            if window is not None:
                visible &= positions > queries - window
            self._masks[key] = visible
        return self._masks[key]


def write_kv(cache: Tensor, new: Tensor, slots: Tensor) -> None:
    """Store rows into a layer's keys or values.

    Args:
        cache: [num_blocks, block_size, num_kv_heads, head_dim].
        new: [T, num_kv_heads, head_dim].
        slots: [T].
    """
    cache.flatten(0, 1).index_copy_(0, slots, new)


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    metadata: AttentionMetadata,
    scale: float,
    window: int | None,
) -> Tensor:
    """Causal attention of every row over its request's cached context, its own key included.

    Args:
        query: [T, num_heads, head_dim]; heads of a group share a KV head (GQA).
        keys, values: one layer's cache, already holding the batch's own rows.
        metadata: the batch's layout.
        scale: factor on the scores.
        window: sliding window in tokens, the row's own included; None is full attention.

    Returns:
        [T, num_heads, head_dim].
    """
    output = torch.empty_like(query)
    for index, group in enumerate(metadata.decode_groups):
        output[group.rows] = _decode(query[group.rows], keys, values, metadata, index, scale, window)
    for index, span in enumerate(metadata.prefills):
        rows = slice(span.first_row, span.first_row + span.num_rows)
        output[rows] = _prefill(query[rows], keys, values, metadata, index, scale, window)
    return output


def _decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    metadata: AttentionMetadata,
    index: int,
    scale: float,
    window: int | None,
) -> Tensor:
    tables = metadata.decode_groups[index].block_tables
    num_rows, num_heads, head_dim = query.shape
    num_kv_heads = keys.shape[2]
    # [B, num_blocks, block_size, KV, D] -> [B, KV, L, D]; the heads of a group become query rows.
    key = keys[tables].flatten(1, 2).transpose(1, 2)
    value = values[tables].flatten(1, 2).transpose(1, 2)
    grouped = query.view(num_rows, num_kv_heads, num_heads // num_kv_heads, head_dim)
    mask = metadata.decode_mask(index, key.shape[2], window)
    attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    return attended.reshape(num_rows, num_heads, head_dim)


def _prefill(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    metadata: AttentionMetadata,
    index: int,
    scale: float,
    window: int | None,
) -> Tensor:
    span = metadata.prefills[index]
    stop = span.start + span.num_rows
    num_rows, num_heads, head_dim = query.shape
    group_size = num_heads // keys.shape[2]
    key = keys[span.block_ids].flatten(0, 1)[:stop].transpose(0, 1)
    value = values[span.block_ids].flatten(0, 1)[:stop].transpose(0, 1)
    # [n, H, D] -> [KV, group * n, D]: all heads of a group over the same keys, without copying them.
    grouped = query.transpose(0, 1).reshape(-1, group_size * num_rows, head_dim)
    mask = metadata.prefill_mask(index, window).repeat(group_size, 1)
    attended = F.scaled_dot_product_attention(
        grouped[None], key[None], value[None], attn_mask=mask[None, None], scale=scale
    )
    return attended.view(num_heads, num_rows, head_dim).transpose(0, 1)
