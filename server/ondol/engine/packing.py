"""Arrays that travel to the device in one copy.

Knows shapes and dtypes, nothing about what they mean. Invariant: an array arrives as it was added, and the
device is not waited for.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ondol.engine.transfers import upload

# Every array begins where any dtype may, and always at a multiple of 16 bytes: where a pointer is one in this
# step and was none before, Triton compiles its kernel anew, in the middle of an answer.
ALIGNMENT_BYTES = 16
TORCH_DTYPES = {"int64": torch.int64, "int32": torch.int32}


class Packing:
    """Collects arrays for one copy."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.int64] | NDArray[np.int32]] = []

    def add(self, values: ArrayLike) -> int:
        """Add an int64 array, or an int32 one that is one already; returns its place in what is sent."""
        array = np.ascontiguousarray(values)
        self._arrays.append(array if array.dtype == np.int32 else array.astype(np.int64, copy=False))
        return len(self._arrays) - 1

    def send(self, device: torch.device) -> list[Tensor]:
        """The arrays on `device`, in the order in which they were added."""
        starts, num_bytes = [], 0
        for array in self._arrays:
            starts.append(num_bytes)
            num_bytes += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        packed = np.empty(num_bytes, dtype=np.uint8)
        for start, array in zip(starts, self._arrays, strict=True):
            packed[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        sent = upload(packed, device)
        return [
            sent[start : start + array.nbytes].view(TORCH_DTYPES[array.dtype.name]).view(array.shape)
            for start, array in zip(starts, self._arrays, strict=True)
        ]
