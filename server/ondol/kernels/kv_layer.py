"""One layer's part of the paged KV cache: how keys and values are stored, written and read back.

Knows blocks and slots, nothing about who attends to what. Invariant: whoever reads the cache sees the same
values, the request that has just written them included.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.kernels.float8 import dequantize, quantize

# The dtype that stands for codes with a scale for each head of a slot; others are stored as they are.
FLOAT8 = torch.float8_e4m3fn
SCALE_DTYPE = torch.float16


@dataclass(frozen=True, slots=True)
class KVLayer:
    """Keys and values of one layer.

    Attributes:
        keys, values: [num_blocks, block_size, num_kv_heads, head_dim], floats or, with scales, uint8 codes.
        key_scales, value_scales: [num_blocks, block_size, num_kv_heads] float16, of the codes of one slot's
            head (see `kernels.float8`); None where there are no codes.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return int(self.keys.shape[1])

    @property
    def num_kv_heads(self) -> int:
        """Heads that keys and values have."""
        return int(self.keys.shape[2])

    @property
    def head_dim(self) -> int:
        """Elements of one head's key."""
        return int(self.keys.shape[3])

    def tensors(self) -> Iterator[Tensor]:
        """Everything that it is stored in; the first dimension of each is the block."""
        for tensor in (self.keys, self.values, self.key_scales, self.value_scales):
            if tensor is not None:
                yield tensor

    def write(self, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Store rows.

        Args:
            key, value: [T, num_kv_heads, head_dim].
            slots: [T] flat positions, block * block_size + offset, int64.
        """
        _write(self.keys, self.key_scales, key, slots)
        _write(self.values, self.value_scales, value, slots)

    def read(self, blocks: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of blocks [...]: [..., block_size, num_kv_heads, head_dim] each, in `dtype`."""
        return (
            _read(self.keys, self.key_scales, blocks, dtype),
            _read(self.values, self.value_scales, blocks, dtype),
        )

    def clear(self, blocks: Tensor) -> None:
        """Make everything in blocks [n], int64, read as zero."""
        for tensor in self.tensors():
            tensor.index_fill_(0, blocks, 0)


def make_kv_layer(
    num_blocks: int, block_size: int, heads: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> KVLayer:
    """A layer whose contents are whatever the memory held.

    Not zeros: writing them would make the whole pool resident at once.

    Args:
        num_blocks, block_size: its size.
        heads: KV heads and the elements of each.
        dtype: of keys and values; `FLOAT8` for codes with scales.
        device: where it lies.
    """
    lead = (num_blocks, block_size, heads[0])
    if dtype != FLOAT8:
        keys, values = (torch.empty((*lead, heads[1]), dtype=dtype, device=device) for _ in range(2))
        return KVLayer(keys, values)
    keys, values = (torch.empty((*lead, heads[1]), dtype=torch.uint8, device=device) for _ in range(2))
    key_scales, value_scales = (torch.empty(lead, dtype=SCALE_DTYPE, device=device) for _ in range(2))
    return KVLayer(keys, values, key_scales, value_scales)


def kv_head_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one head's key, or value, at one position."""
    return head_dim * dtype.itemsize + (SCALE_DTYPE.itemsize if dtype == FLOAT8 else 0)


def _write(cache: Tensor, scales: Tensor | None, new: Tensor, slots: Tensor) -> None:
    if scales is None:
        cache.flatten(0, 1).index_copy_(0, slots, new)
        return
    codes, new_scales = quantize(new)
    cache.flatten(0, 1).index_copy_(0, slots, codes)
    scales.flatten(0, 1).index_copy_(0, slots, new_scales)


def _read(cache: Tensor, scales: Tensor | None, blocks: Tensor, dtype: torch.dtype) -> Tensor:
    if scales is None:
        return cache[blocks].to(dtype)
    return dequantize(cache[blocks], scales[blocks], dtype)
