"""One layer's part of the paged KV cache: how keys and values are stored, written and read back.

Knows blocks and slots, nothing about who attends to what. Invariant: whoever reads the cache sees the same
values, the request that has just written them included.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVLayer:
    """Keys and values of one layer.

    Attributes:
        keys, values: [num_blocks, block_size, num_kv_heads, head_dim].
        key_scales, value_scales: None.
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
        self.keys.flatten(0, 1).index_copy_(0, slots, key)
        self.values.flatten(0, 1).index_copy_(0, slots, value)

    def read(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of blocks [...]: [..., block_size, num_kv_heads, head_dim] each."""
        return self.keys[blocks], self.values[blocks]

    def clear(self, blocks: Tensor) -> None:
        """Make everything in blocks [n], int64, read as zero."""
        for tensor in self.tensors():
            tensor.index_fill_(0, blocks, 0)
