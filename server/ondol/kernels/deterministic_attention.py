"""The torch reference of paged attention, computed so that a row's result depends on its own context alone.

Whether a row decodes by itself or lies in a prompt's chunk, its scores are products of the same shapes: its
query with runs of 256 keys from the start of its context, the last run filled up with zeros. Runs that a row
does not see weigh nothing and are added as zeros, which changes no bit. Knows nothing about requests.
Invariant: neither the rows of a chunk nor the end of its context change how a row is summed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata, PrefillSpan, visible_keys
from ondol.kernels.row_tiles import RowTiles

# Keys of one product. Never changed by load or context: it is part of the result's bits.
RUN_LEN = 256
# Scores that are held at once; rows beyond come after.
MAX_SCORES = 16 * 2**20


class DeterministicAttention:
    """Attention over the paged cache, a request at a time.

    Args:
        tiles: multiplies rows.
    """

    def __init__(self, tiles: RowTiles) -> None:
        self._tiles = tiles

    def paged_attention(
        self, query: Tensor, layer: KVLayer, metadata: AttentionMetadata, scale: float, window: int | None
    ) -> Tensor:
        """As `paged_attention.paged_attention`."""
        output = torch.empty_like(query)
        for span in metadata.once("spans", lambda: [*_decode_spans(metadata), *metadata.prefills]):
            for piece in _cut(span, query.shape[1]):
                rows = slice(piece.first_row, piece.first_row + piece.num_rows)
                output[rows] = self._attend(query[rows], layer, piece, scale, window)
        return output

    def _attend(
        self, query: Tensor, layer: KVLayer, span: PrefillSpan, scale: float, window: int | None
    ) -> Tensor:
        """[n, num_heads, head_dim] of consecutive rows of one request, computed in float32."""
        num_rows, num_heads, head_dim = query.shape
        group = num_heads // layer.num_kv_heads
        # What lies before every row's window is not looked at, in whole runs.
        begin = 0 if window is None else max(0, span.start - window + 1) // RUN_LEN * RUN_LEN
        keys, values = _runs(layer, span, begin)
        # [n, heads, D] -> [KV, n * group, D]: a row's heads that share keys lie together.
        rows = query.float().view(num_rows, layer.num_kv_heads, group, head_dim).transpose(0, 1)
        rows = rows.reshape(layer.num_kv_heads, num_rows * group, head_dim)
        scores = torch.cat([self._tiles.multiply(rows, run.transpose(1, 2)) for run in keys], dim=-1)
        hidden = ~visible_keys(span, window, begin, scores.shape[-1]).repeat_interleave(group, dim=0)
        weights = scores.mul_(scale).masked_fill_(hidden, float("-inf")).softmax(dim=-1)
        total = torch.zeros_like(rows)
        for part, run in zip(torch.split(weights, RUN_LEN, dim=-1), values, strict=True):
            total += self._tiles.multiply(part, run)
        attended = total.view(layer.num_kv_heads, num_rows, group, head_dim).transpose(0, 1)
        return attended.reshape(num_rows, num_heads, head_dim).to(query.dtype)


def _decode_spans(metadata: AttentionMetadata) -> list[PrefillSpan]:
    """Decode rows as chunks of one row."""
    decodes = metadata.decodes
    if decodes is None:
        return []
    layout = zip(decodes.rows.tolist(), decodes.context_lens.tolist(), decodes.block_tables, strict=True)
    return [PrefillSpan(row, 1, context - 1, table) for row, context, table in layout]


def _cut(span: PrefillSpan, num_heads: int) -> list[PrefillSpan]:
    """The span in pieces whose scores fit the memory for them; one row always does."""
    num_keys = -(-span.stop // RUN_LEN) * RUN_LEN
    num_rows = max(1, MAX_SCORES // (num_heads * num_keys))
    return [
        PrefillSpan(
            span.first_row + offset,
            min(num_rows, span.num_rows - offset),
            span.start + offset,
            span.block_ids,
        )
        for offset in range(0, span.num_rows, num_rows)
    ]


def _runs(layer: KVLayer, span: PrefillSpan, begin: int) -> tuple[Tensor, Tensor]:
    """Keys and values of the positions [begin, stop), [num_runs, KV, RUN_LEN, head_dim] each, float32."""
    blocks = span.block_ids[begin // layer.block_size : -(-span.stop // layer.block_size)]
    skipped = begin % layer.block_size
    num_keys = span.stop - begin
    padding = (0, 0, 0, 0, 0, -num_keys % RUN_LEN)
    keys, values = (
        F.pad(part.flatten(0, 1)[skipped : skipped + num_keys].float(), padding)
        .view(-1, RUN_LEN, layer.num_kv_heads, layer.head_dim)
        .transpose(1, 2)
        .contiguous()
        for part in layer.read(blocks, torch.float32)
    )
    return keys, values
