"""Host memory that a GPU copies from at full speed.

Knows bytes, nothing about what they hold. Invariant: page-locked memory is unlocked before it is freed.
"""

import mmap
import weakref

import torch
from torch import Tensor

from ondol.errors import DoesNotFit


class HostMemory:
    """One piece of host memory, page-locked for a GPU.

    torch's own page-locked tensors take the next power of two, which of a whole model is too much.

    Args:
        size_bytes: how much.
        device: who copies from it; for a CPU nothing is locked.

    Attributes:
        data: [size_bytes] uint8, uninitialized.

    Raises:
        DoesNotFit: the system does not let so much memory be locked.
    """

    def __init__(self, size_bytes: int, device: torch.device) -> None:
        # Whole pages are locked, so whole pages are taken.
        num_pages = -(-size_bytes // mmap.PAGESIZE)
        whole = torch.empty((num_pages + 1) * mmap.PAGESIZE, dtype=torch.uint8)
        start = -whole.data_ptr() % mmap.PAGESIZE
        self.data: Tensor = whole[start : start + size_bytes]
        if device.type == "cuda":
            self._lock(num_pages * mmap.PAGESIZE)

    def _lock(self, size_bytes: int) -> None:
        cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = self.data.data_ptr()
        status = int(cudart.cudaHostRegister(address, size_bytes, 0))
        if status != 0:
            raise DoesNotFit(
                f"{size_bytes / 2**20:.0f} MiB of host memory cannot be page-locked (CUDA error {status}): "
                "lower --cpu-offload-gb, or raise the limit that `ulimit -l` shows."
            )
        # A process that ends gives its locked memory back by itself.
        weakref.finalize(self, _unlock, address).atexit = False


def _unlock(address: int) -> None:
    """Once nothing is copied from it any more: copies for the next step are always under way."""
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
