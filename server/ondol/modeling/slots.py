"""The places that checkpoint tensors go to.

A slot names the tensors it needs and takes them when they are all there; what it does with them
(copy, quantize, repack) is its own business. Knows nothing about files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class BadTensor(Exception):
    """A tensor does not fit its slot; the loader adds the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{name} {reason}")


class WeightSlot(Protocol):
    """Takes one or several tensors that belong together."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names in the checkpoint."""
        ...

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors, which lie on the CPU; raises BadTensor."""
        ...


@runtime_checkable
class HasSlots(Protocol):
    """A module that needs tensors from the checkpoint."""

    def slots(self) -> Iterator[WeightSlot]:
        """What it needs."""
        ...


@dataclass(frozen=True, slots=True)
class ParameterSlot:
    """Copies one tensor into a range of a parameter's rows.

    Attributes:
        name: the tensor's name in the checkpoint.
        module: the module whose parameter takes it.
        parameter: that parameter's name.
        start, stop: range of the parameter's first dimension (of the expert's, if `expert` is set).
        expert: index into a stack of experts, or None.
    """

    name: str
    module: nn.Module
    parameter: str
    start: int
    stop: int
    expert: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The one tensor."""
        return (self.name,)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy, casting to the parameter's dtype; raises BadTensor."""
        target: Tensor = getattr(self.module, self.parameter)
        if self.expert is not None:
            target = target[self.expert]
        target = target[self.start : self.stop]
        tensor = tensors[self.name]
        check_weights(self.name, tensor, tuple(target.shape))
        target.copy_(tensor)


def check_weights(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise BadTensor unless the tensor holds finite floating-point values in the given shape."""
    check_shape(name, tensor, shape)
    if not tensor.is_floating_point():
        raise BadTensor(name, f"holds {tensor.dtype}, not floating-point weights")
    # The extremes propagate NaN; one pass instead of a mask as large as the tensor.
    low, high = tensor.float().aminmax() if tensor.element_size() == 1 else tensor.aminmax()
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise BadTensor(name, "holds values that are not finite (NaN or infinity)")


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise BadTensor unless the tensor has this shape."""
    if tuple(tensor.shape) != shape:
        raise BadTensor(name, f"has shape {list(tensor.shape)}, the model needs {list(shape)}")
