"""The memory that a model may take: this machine's, or that of one that is only described.

Knows nothing about models.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ondol.engine.kv_cache import (
    RESERVE_SHARE,
    available_bytes,
    free_bytes,
    host_free_bytes,
    total_bytes,
)

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A device's memory.

    Attributes:
        device: decides the default dtype and how many rows a step has.
        name: for people; empty for one that is only described.
        total_bytes: all memory.
        usable_bytes: what engines may take now: free, less what they leave to others.
        host_bytes: host memory beside it, where layers may stay; 0 for a CPU, whose memory it is.
        kv_limit_bytes: what an engine takes for its KV cache at most while nobody asks for more; None is all
            that is left.
    """

    device: DeviceKind
    name: str
    total_bytes: int
    usable_bytes: int
    host_bytes: int = 0
    kv_limit_bytes: int | None = None


def this_machine(device: torch.device) -> Machine:
    """What is free on the GPU, or in the memory of the host."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return Machine("cuda", name, total_bytes(device), free_bytes(device), host_free_bytes())
    kv_limit_bytes = available_bytes(device)
    return Machine("cpu", "", total_bytes(device), free_bytes(device), kv_limit_bytes=kv_limit_bytes)


def described_machine(memory_bytes: int, device: DeviceKind) -> Machine:
    """An empty device with this much memory, of which engines take the same share as of a real one.

    It is thought of as in this machine: layers may stay in the host's memory.
    """
    host_bytes = host_free_bytes() if device == "cuda" else 0
    return Machine(device, "", memory_bytes, int(memory_bytes * (1 - RESERVE_SHARE)), host_bytes)
