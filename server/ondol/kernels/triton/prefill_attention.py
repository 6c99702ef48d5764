"""Attention of prompt chunks over a paged prefix and themselves: causal, within a sliding window.

The chunks of all requests are cut into tiles of rows; a program takes one tile and one head. Knows nothing
about decode rows. Invariant: tiles of keys begin at multiples of their length, whatever the chunk, and a row
never sums over another request's.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata
from ondol.kernels.triton.attention_tile import MIN_DOT_ROWS, attend_tile

# Rows of one program: what one group of four warps multiplies at once on Hopper.
MAX_TILE_ROWS = 64
# Float32 has fewer, of so many bytes together: more would not fit the shared memory of every card.
WIDE_TILE_BYTES = 16 * 1024
NUM_TILE_FIELDS = 4


def attend_prefills(
    query: Tensor,
    layer: KVLayer,
    metadata: AttentionMetadata,
    output: Tensor,
    options: dict[str, Any],
) -> None:
    """Write the rows of the prefill spans of `output`; takes what `attend_decodes` takes."""
    tile_rows = MAX_TILE_ROWS
    if query.dtype == torch.float32:
        fitting = WIDE_TILE_BYTES // (options["BLOCK_D"] * query.itemsize)
        tile_rows = max(MIN_DOT_ROWS, min(MAX_TILE_ROWS, fitting))
    tiles, tables = metadata.once(("tiles", tile_rows), lambda: _cut_into_tiles(metadata, tile_rows))
    num_heads = query.shape[1]
    _prefill_kernel[(len(tiles), num_heads)](
        *(query, layer.keys, layer.values, layer.key_scales, layer.value_scales, tiles, tables, output),
        GROUP=num_heads // layer.num_kv_heads,
        BLOCK_M=tile_rows,
        NUM_FIELDS=NUM_TILE_FIELDS,
        **options,
        num_warps=4,
    )


def _cut_into_tiles(metadata: AttentionMetadata, tile_rows: int) -> tuple[Tensor, Tensor]:
    """Tiles [num_tiles, 4] int32: first row, number of rows, first position, start of the block table.

    The second tensor holds the block tables of all spans, one after the other, int32.
    """
    tiles = []
    table_start = 0
    for span in metadata.prefills:
        for offset in range(0, span.num_rows, tile_rows):
            num_rows = min(tile_rows, span.num_rows - offset)
            tiles.append((span.first_row + offset, num_rows, span.start + offset, table_start))
        table_start += len(span.block_ids)
    # Tiles with the longest contexts first: the last programs to start are the short ones.
    tiles.sort(key=lambda tile: -tile[2])
    tables = torch.cat([span.block_ids.to(torch.int32) for span in metadata.prefills])
    # From pinned memory, or the host would wait for all that was launched before.
    on_host = torch.tensor(tiles, dtype=torch.int32, pin_memory=tables.is_cuda)
    return on_host.to(tables.device, non_blocking=True), tables


@triton.jit
def _prefill_kernel(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_scales: tl.tensor | None,
    value_scales: tl.tensor | None,
    tiles: tl.tensor,
    tables: tl.tensor,
    output: tl.tensor,
    scale: float,
    window: int,
    GROUP: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_FIELDS: tl.constexpr,
) -> None:
    tile, head = tiles + tl.program_id(0) * NUM_FIELDS, tl.program_id(1)
    first_row, num_rows = tl.load(tile).to(tl.int64), tl.load(tile + 1)
    position, table_start = tl.load(tile + 2), tl.load(tile + 3)
    member = tl.arange(0, BLOCK_M)
    column = tl.arange(0, BLOCK_D)
    inside = (member < num_rows)[:, None] & (column < HEAD_DIM)[None, :]
    offsets = ((first_row + member) * NUM_KV_HEADS * GROUP + head)[:, None] * HEAD_DIM + column[None, :]
    vectors = tl.load(query + offsets, mask=inside, other=0.0)
    maximum = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    stop = position + num_rows
    # Rows that only fill the tile see what the last one sees: a row that saw nothing would divide by zero.
    newest = tl.minimum(position + member, stop - 1)
    visible = (tl.maximum(newest - window + 1, 0), newest)
    cache = (keys, values, key_scales, value_scales, tables + table_start)
    first = tl.maximum(position - window + 1, 0) // BLOCK_N * BLOCK_N
    for start in range(first, stop, BLOCK_N):
        maximum, total, weighted = attend_tile(
            *(vectors, (maximum, total, weighted), cache, start, stop, visible, head // GROUP, scale),
            *(NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE, BLOCK_N, BLOCK_D),
        )
    result = weighted / total[:, None]
    tl.store(output + offsets, result.to(output.dtype.element_ty), mask=inside)
