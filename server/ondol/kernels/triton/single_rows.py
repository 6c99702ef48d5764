"""Attention of prompt chunks, every row by itself, by the kernel for decode rows.

For the mode in which a row's bits do not depend on whether it was computed in a chunk or by itself: it is the
same program. The price is that keys and values, which a chunk's rows share, are read for each of them, mostly
from the device's L2 cache. Knows nothing about how rows are summed. Invariant: a row is given its context's
length and table, and nothing of the chunk.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows, PrefillSpan
from ondol.kernels.triton.decode_attention import SPLIT_LEN, attend_rows, make_workspace

# Of the splits' sums of one launch; a chunk whose rows need more is computed in several.
MAX_WORKSPACE_BYTES = 64 * 2**20


def attend_prefills_singly(
    query: Tensor,
    layer: KVLayer,
    metadata: AttentionMetadata,
    output: Tensor,
    options: dict[str, Any],
) -> None:
    """Write the rows of the prefill spans of `output`; takes what `attend_decodes` takes."""
    num_heads, head_dim = query.shape[1:]
    split_bytes = num_heads * (head_dim + 2) * torch.float32.itemsize
    pieces = metadata.once(
        ("single rows", split_bytes),
        lambda: [piece for span in metadata.prefills for piece in _cut(span, split_bytes)],
    )
    for piece in pieces:
        attend_rows(query, layer, piece, make_workspace(piece, num_heads, head_dim), output, options)


def _cut(span: PrefillSpan, split_bytes: int) -> Iterator[DecodeRows]:
    """The rows of a span, as many at once as the workspace holds for the longest context."""
    device = span.block_ids.device
    table = span.block_ids.to(torch.int32).contiguous()[None, :]
    num_rows = max(1, MAX_WORKSPACE_BYTES // (split_bytes * triton.cdiv(span.stop, SPLIT_LEN)))
    for offset in range(0, span.num_rows, num_rows):
        stop = min(offset + num_rows, span.num_rows)
        yield DecodeRows(
            rows=torch.arange(span.first_row + offset, span.first_row + stop, device=device),
            block_tables=table.expand(stop - offset, -1),
            context_lens=torch.arange(
                span.start + offset + 1, span.start + stop + 1, dtype=torch.int32, device=device
            ),
            max_context_len=span.start + stop,
        )
