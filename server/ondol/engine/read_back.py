"""Brings results from the device to the host, beside what the device does next.

Knows tensors, nothing about what they mean. Invariant: beginning waits for nothing; reading waits for the
work that was queued before the beginning, and for nothing after it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class ReadBack:
    """Copies that are on their way.

    Args:
        tensors: results, on one device. On a CPU they are what will be read: nobody changes them any more.
        device: theirs.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            # Only to pinned memory does the device copy by itself.
            self._tensors = [
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                for tensor in tensors
            ]
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._tensors = list(tensors)

    def read(self) -> list[Tensor]:
        """The tensors on the host, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors
