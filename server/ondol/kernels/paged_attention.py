"""Attention over a paged KV cache for a flat ragged batch: the torch reference.

Knows block numbers and row ranges, nothing about requests or models. Runs on any device; fast
kernels must agree with it.

A batch is a flat sequence of T rows. Decodes (one row each) are computed together in groups of
similar context length, so that padding never more than doubles the work; each prefill chunk is
computed by itself over its whole context.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.operators import rotate


@dataclass(frozen=True, slots=True)
class PagedKVCache:
    """Keys and values of every layer, in the order of the layers."""

    layers: tuple[KVLayer, ...]

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return self.layers[0].block_size


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """All decode rows of a batch, in any order.

    Attributes:
        rows: [B] row numbers in the flat batch, int64.
        block_tables: [B, max_blocks] block numbers, int32, contiguous. A row's table is filled up with a
            block of its own: the values of another request's may be NaN, which no mask hides.
        context_lens: [B] tokens to attend to, the row's own included, int32.
        max_context_len: a bound on them that the host knows: it sizes grids and workspaces.
    """

    rows: Tensor
    block_tables: Tensor
    context_lens: Tensor
    max_context_len: int


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """One request's chunk: `num_rows` rows from `first_row`, at positions [start, start + num_rows).

    Attributes:
        block_ids: [num_blocks] the blocks that hold positions [0, start + num_rows), int32 or int64.
    """

    first_row: int
    num_rows: int
    start: int
    block_ids: Tensor

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.start + self.num_rows


@dataclass(slots=True)
class AttentionMetadata:
    """Where every row's keys and values go, and what it attends to; the same for all layers.

    Attributes:
        slots: [T] flat cache position (block * block_size + offset) of each row, int64.
        decodes, prefills: together they cover every row once; None where no row decodes.
    """

    slots: Tensor
    decodes: DecodeRows | None
    prefills: Sequence[PrefillSpan]
    _derived: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, build: Callable[[], Any]) -> Any:  # noqa: ANN401 (whatever `build` makes)
        """What `build` makes of this layout: built by the first layer that asks, kept for the others."""
        if key not in self._derived:
            self._derived[key] = build()
        return self._derived[key]


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decode rows of similar context length, and their tables cut to the longest."""

    rows: Tensor
    block_tables: Tensor
    context_lens: Tensor


def rotate_and_write_kv(
    heads: Tensor, rotary: tuple[Tensor, Tensor], layer: KVLayer, slots: Tensor
) -> Tensor:
    """Rotate queries and keys to their positions, and store keys and values.

    Args:
        heads: [T, num_heads + 2 * num_kv_heads, head_dim]: queries, keys, values.
        rotary: cos and sin, [T, 1, head_dim] each; see `operators.rotate`.
        layer: one layer's cache.
        slots: [T].

    Returns:
        The rotated queries, [T, num_heads, head_dim].
    """
    num_kv_heads = layer.num_kv_heads
    widths = [heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads]
    query, key, value = torch.split(heads, widths, dim=1)
    layer.write(rotate(key, *rotary), value, slots)
    return rotate(query, *rotary)


def paged_attention(
    query: Tensor,
    layer: KVLayer,
    metadata: AttentionMetadata,
    scale: float,
    window: int | None,
) -> Tensor:
    """Causal attention of every row over its request's cached context, its own key included.

    Args:
        query: [T, num_heads, head_dim]; heads of a group share a KV head (GQA).
        layer: one layer's cache, already holding the batch's own rows.
        metadata: the batch's layout.
        scale: factor on the scores.
        window: sliding window in tokens, the row's own included; None is full attention.

    Returns:
        [T, num_heads, head_dim].
    """
    output = torch.empty_like(query)
    for group, mask in _masked_groups(metadata, layer.block_size, window):
        output[group.rows] = _decode(query[group.rows], layer, group.block_tables, mask, scale)
    for index, span in enumerate(metadata.prefills):
        rows = slice(span.first_row, span.first_row + span.num_rows)
        mask = metadata.once(("mask", index, window), partial(visible_keys, span, window, 0, span.stop))
        output[rows] = _prefill(query[rows], layer, span, mask, scale)
    return output


def visible_keys(span: PrefillSpan, window: int | None, begin: int, num_keys: int) -> Tensor:
    """[num_rows, num_keys] bool: which positions from `begin` on each row sees, its own included."""
    device = span.block_ids.device
    queries = torch.arange(span.start, span.stop, device=device)[:, None]
    positions = torch.arange(begin, begin + num_keys, device=device)[None, :]
    visible = positions <= queries
    if window is not None:
        visible &= positions > queries - window
    return visible


def group_decodes(decodes: DecodeRows, block_size: int) -> list[DecodeGroup]:
    """Group rows whose context lengths differ at most twofold, so that padding stays bounded."""
    lengths: list[int] = decodes.context_lens.tolist()
    chunks: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not chunks or lengths[row] > 2 * lengths[chunks[-1][0]]:
            chunks.append([])
        chunks[-1].append(row)
    groups = []
    for chunk in chunks:
        index = torch.tensor(chunk, device=decodes.rows.device)
        num_blocks = -(-lengths[chunk[-1]] // block_size)
        tables = decodes.block_tables[index, :num_blocks]
        groups.append(DecodeGroup(decodes.rows[index], tables, decodes.context_lens[index]))
    return groups


def _masked_groups(
    metadata: AttentionMetadata, block_size: int, window: int | None
) -> list[tuple[DecodeGroup, Tensor]]:
    decodes = metadata.decodes
    if decodes is None:
        return []
    groups = metadata.once("groups", lambda: group_decodes(decodes, block_size))
    masks = metadata.once(
        ("masks", window), lambda: [_decode_mask(group, block_size, window) for group in groups]
    )
    return list(zip(groups, masks, strict=True))


def _decode_mask(group: DecodeGroup, block_size: int, window: int | None) -> Tensor:
    """[B, 1, 1, num_keys] bool: which keys each decode row of a group sees."""
    last = group.context_lens[:, None]
    positions = torch.arange(group.block_tables.shape[1] * block_size, device=last.device)[None, :]
    visible = positions < last
    if window is not None:
        visible &= positions >= last - window
    return visible[:, None, None, :]


def _decode(query: Tensor, layer: KVLayer, tables: Tensor, mask: Tensor, scale: float) -> Tensor:
    num_rows, num_heads, head_dim = query.shape
    num_kv_heads = layer.num_kv_heads
    # [B, num_blocks, block_size, KV, D] -> [B, KV, L, D]; the heads of a group become query rows.
    key, value = (part.flatten(1, 2).transpose(1, 2) for part in layer.read(tables, query.dtype))
    grouped = query.view(num_rows, num_kv_heads, num_heads // num_kv_heads, head_dim)
    attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    return attended.reshape(num_rows, num_heads, head_dim)


def _prefill(query: Tensor, layer: KVLayer, span: PrefillSpan, mask: Tensor, scale: float) -> Tensor:
    num_rows, num_heads, head_dim = query.shape
    group_size = num_heads // layer.num_kv_heads
    key, value = (
        part.flatten(0, 1)[: span.stop].transpose(0, 1) for part in layer.read(span.block_ids, query.dtype)
    )
    # [n, H, D] -> [KV, group * n, D]: all heads of a group over the same keys, without copying them.
    grouped = query.transpose(0, 1).reshape(-1, group_size * num_rows, head_dim)
    attended = F.scaled_dot_product_attention(
        grouped[None], key[None], value[None], attn_mask=mask.repeat(group_size, 1)[None, None], scale=scale
    )
    return attended.view(num_heads, num_rows, head_dim).transpose(0, 1)
