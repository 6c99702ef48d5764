"""Who makes a model's weight-bearing layers: the seam between architecture and precision.

The decoder says what it needs (shapes and names); a factory decides how it is stored. Knows nothing
about how layers are joined.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ondol.modeling.layers import ExpertsShape, ExpertStack, Linear, ProjectionShape
from ondol.modeling.slots import WeightSlot


class Projection(Protocol):
    """A module that maps [T, K] to [T, N]."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """[T, K] -> [T, N]."""
        ...

    def slots(self) -> Iterator[WeightSlot]:
        """What it needs from the checkpoint."""
        ...


class Experts(Protocol):
    """A module that sends each row through its chosen experts."""

    def __call__(self, hidden: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """[T, H] -> [T, H]."""
        ...

    def slots(self) -> Iterator[WeightSlot]:
        """What it needs from the checkpoint."""
        ...


class LayerFactory(Protocol):
    """Makes layers in some precision, on the current default device."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of hidden states and of everything that is not quantized."""
        ...

    def projection(self, shape: ProjectionShape) -> Projection:
        """A projection that may be quantized."""
        ...

    def experts(self, shape: ExpertsShape) -> Experts:
        """A stack of experts that may be quantized."""
        ...

    def head(self, shape: ProjectionShape) -> Projection:
        """The language-model head, which usually is not quantized."""
        ...

    def router(self, shape: ProjectionShape) -> Projection:
        """A router or an expert's gate: small, decides where rows go, hardly ever quantized."""
        ...


@dataclass(frozen=True, slots=True)
class PlainLayers:
    """Nothing is quantized."""

    dtype: torch.dtype

    def projection(self, shape: ProjectionShape) -> Projection:
        """A matrix."""
        return Linear(shape, self.dtype)

    def experts(self, shape: ExpertsShape) -> Experts:
        """A stack of matrices."""
        return ExpertStack(shape, self.dtype)

    def head(self, shape: ProjectionShape) -> Projection:
        """A matrix."""
        return Linear(shape, self.dtype)

    def router(self, shape: ProjectionShape) -> Projection:
        """A matrix."""
        return Linear(shape, self.dtype)
