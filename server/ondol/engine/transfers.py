"""Brings what the host has counted onto the device.

Knows arrays, nothing about what they mean. Invariant: the device is not waited for.
"""

import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray, device: torch.device) -> Tensor:  # type: ignore[type-arg]
    """The array as a tensor on `device`, queued behind what the device has to do already.

    Copied through pinned memory, which torch does not reuse before the copy is done: a copy from any other
    memory waits for the device. On a CPU the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
