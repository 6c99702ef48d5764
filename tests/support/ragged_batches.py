"""Flat ragged batches over scattered blocks of a random paged cache, for any implementation of attention."""

import torch

from ondol.kernels.float8 import quantize
from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows, PrefillSpan


class RaggedBatch:
    """Rows of several requests in one batch, decodes and prefill spans mixed in any order.

    Args:
        decodes: context length of each decode row.
        prefills: (start, number of rows) of each span.
        heads: query heads and KV heads.
        garbage: what every cache position holds that no request owns.
        has_codes: whether the cache holds codes of 8-bit floating point.
    """

    def __init__(
        self,
        decodes=(),
        prefills=(),
        *,
        heads=(4, 2),
        head_dim=64,
        block_size=16,
        dtype=torch.float32,
        garbage=0.0,
        device="cpu",
        has_codes=False,
    ):
        generator = torch.Generator().manual_seed(0)
        contexts = [*decodes, *(start + num_rows for start, num_rows in prefills)]
        num_blocks = [-(-length // block_size) for length in contexts]
        tables = torch.randperm(sum(num_blocks) + 2, generator=generator)[: sum(num_blocks)].split(num_blocks)
        shape = (2, sum(num_blocks) + 2, block_size, heads[1], head_dim)
        cache = torch.full(shape, garbage)
        for length, table in zip(contexts, tables, strict=True):
            content = torch.randn(2, length, heads[1], head_dim, generator=generator)
            positions = torch.arange(length)
            slots = table[positions // block_size] * block_size + positions % block_size
            cache.flatten(1, 2)[:, slots] = content
        self.layer = make_layer(*cache.to(device, dtype), has_codes=has_codes)
        num_rows = len(decodes) + sum(rows for _, rows in prefills)
        self.query = torch.randn(num_rows, heads[0], head_dim, generator=generator).to(device, dtype)
        self.scale = head_dim**-0.5
        spans, first_row = [], 0
        for (start, rows), table in zip(prefills, tables[len(decodes) :], strict=True):
            spans.append(PrefillSpan(first_row, rows, start, table.to(device)))
            first_row += rows
        self.metadata = AttentionMetadata(
            torch.empty(0, dtype=torch.int64), _decode_rows(decodes, tables, first_row, device), spans
        )

    def attend(self, kernels, window=None):
        """[T, heads, head_dim]; lays the batch out anew, as every step does."""
        metadata = AttentionMetadata(self.metadata.slots, self.metadata.decodes, self.metadata.prefills)
        return kernels.paged_attention(self.query, self.layer, metadata, self.scale, window)

    def copy_blocks(self, blocks, other, other_blocks):
        """Put what another batch's blocks hold into own blocks."""
        for own, source in zip(self.layer.tensors(), other.layer.tensors(), strict=True):
            own[blocks] = source[other_blocks]


def make_layer(keys, values, *, has_codes):
    """A layer of the cache that holds them, as they are or as codes."""
    if not has_codes:
        return KVLayer(keys, values)
    (key_codes, key_scales), (value_codes, value_scales) = quantize(keys), quantize(values)
    return KVLayer(key_codes, value_codes, key_scales, value_scales)


def _decode_rows(lengths, tables, first_row, device):
    if not lengths:
        return None
    width = max(len(table) for table in tables[: len(lengths)])
    padded = torch.stack(
        [torch.cat((table, table[-1:].expand(width - len(table)))) for table in tables[: len(lengths)]]
    )
    # Backwards: rows need not come in the order of the batch.
    rows = torch.arange(first_row, first_row + len(lengths)).flip(0)
    return DecodeRows(
        rows.to(device),
        padded.flip(0).to(device, torch.int32).contiguous(),
        torch.tensor(lengths, dtype=torch.int32).flip(0).to(device),
        max(lengths),
    )
