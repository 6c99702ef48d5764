"""Modules that compute through the engine's kernels, and how these reach them.

Knows nothing about which kernels there are. Invariant: a module that nobody gave kernels computes with the
torch reference, which runs everywhere.
"""

from collections.abc import Iterable

from torch import nn

from ondol.kernels.backend import REFERENCE, Kernels


class KernelModule(nn.Module):
    """A module with kernels.

    Attributes:
        kernels: what its operators run on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Kernels = REFERENCE


def use_kernels(named_modules: Iterable[tuple[str, nn.Module]], kernels: Kernels) -> None:
    """Hand the engine's kernels to the modules of a model."""
    for _, module in named_modules:
        if isinstance(module, KernelModule):
            module.kernels = kernels
