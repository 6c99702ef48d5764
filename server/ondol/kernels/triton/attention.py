"""Paged attention of a ragged batch: its decode rows and its prefill spans, a kernel each.

Knows which block shapes suit which head; nothing about layers. Invariant: these depend on the model's shapes
and dtype alone.
"""

import torch
import triton
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata
from ondol.kernels.triton.attention_tile import LOG2_E
from ondol.kernels.triton.decode_attention import attend_decodes
from ondol.kernels.triton.prefill_attention import attend_prefills
from ondol.kernels.triton.single_rows import attend_prefills_singly

# Keys of one tile: as many as these bytes of shared memory hold, at most what one product multiplies well, at
# least what tensor cores sum over.
TILE_BYTES = 16 * 1024
MAX_TILE_KEYS = 64
MIN_TILE_KEYS = 16
# With longer heads than this only two tiles are in flight.
SHORT_HEAD_BYTES = 256
# A window that no context reaches; kernels have no branch for models without one.
NO_WINDOW = 2**30
# tl.dot sums over at least this many columns.
MIN_HEAD_BLOCK = 16


def paged_attention(
    query: Tensor,
    layer: KVLayer,
    metadata: AttentionMetadata,
    scale: float,
    window: int | None,
    *,
    is_deterministic: bool = False,
) -> Tensor:
    """As `kernels.paged_attention.paged_attention`; all tensors are contiguous.

    `is_deterministic` makes a row the same bit by bit in a prompt's chunk and by itself.
    """
    tensors = (query, *layer.tensors())
    assert all(tensor.is_contiguous() for tensor in tensors), "heads lie one after the other"
    output = torch.empty_like(query)
    block_d = max(MIN_HEAD_BLOCK, triton.next_power_of_2(layer.head_dim))
    head_bytes = block_d * query.itemsize
    options = {
        "scale": scale * LOG2_E,
        "window": NO_WINDOW if window is None else window,
        "NUM_KV_HEADS": layer.num_kv_heads,
        "HEAD_DIM": layer.head_dim,
        "BLOCK_SIZE": layer.block_size,
        "BLOCK_N": max(MIN_TILE_KEYS, min(MAX_TILE_KEYS, TILE_BYTES // head_bytes)),
        "BLOCK_D": block_d,
        "num_stages": 3 if head_bytes <= SHORT_HEAD_BYTES else 2,
    }
    if metadata.decodes is not None:
        attend_decodes(query, layer, metadata, output, options)
    if metadata.prefills:
        attend = attend_prefills_singly if is_deterministic else attend_prefills
        attend(query, layer, metadata, output, options)
    return output
