"""How weights travel from host memory to the device while it computes.

Knows buffers by number, nothing about layers. Invariant: a buffer is written only after everything that was
queued before has read it, and read only after it was written.
"""

from typing import Protocol

import torch
from torch import Tensor


class LayerCopies(Protocol):
    """Copies between host and device, ordered with what the device computes."""

    def start(self, buffer: int, target: Tensor, source: Tensor) -> None:
        """Queue a copy behind the computations queued so far.

        Args:
            buffer: which buffer the target lies in.
            target: on the device, uint8, as long as the source.
            source: in host memory, uint8.
        """
        ...

    def wait(self, buffer: int) -> None:
        """Have what is computed from here on wait for the newest copy to the buffer."""
        ...


class ImmediateCopies:
    """Copies at once, for devices that do one thing at a time."""

    def start(self, buffer: int, target: Tensor, source: Tensor) -> None:
        """See `LayerCopies`."""
        del buffer
        target.copy_(source)

    def wait(self, buffer: int) -> None:
        """See `LayerCopies`."""


class SideStreamCopies:
    """Copies on a stream of their own; the host never waits.

    Args:
        device: the GPU.
        num_buffers: how many there are.
    """

    def __init__(self, device: torch.device, num_buffers: int) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._read = [torch.cuda.Event() for _ in range(num_buffers)]  # type: ignore[no-untyped-call]
        self._written = [torch.cuda.Event() for _ in range(num_buffers)]  # type: ignore[no-untyped-call]

    def start(self, buffer: int, target: Tensor, source: Tensor) -> None:
        """See `LayerCopies`; `source` is page-locked."""
        self._read[buffer].record(torch.cuda.current_stream(target.device))
        self._stream.wait_event(self._read[buffer])
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        self._written[buffer].record(self._stream)

    def wait(self, buffer: int) -> None:
        """See `LayerCopies`."""
        torch.cuda.current_stream(self._stream.device).wait_event(self._written[buffer])
