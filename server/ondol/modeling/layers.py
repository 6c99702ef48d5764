"""Weight-bearing modules that know their names in a checkpoint.

A module lists its slots: which checkpoint tensor goes into which part of which parameter.
Projections that read the same input are fused into one matrix, so that a step does one GEMM where
the checkpoint has three. Knows nothing about files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondol.modeling.kernel_module import KernelModule
from ondol.modeling.slots import ParameterSlot, WeightSlot


@dataclass(frozen=True, slots=True)
class ProjectionShape:
    """Projections that read the same input and are stacked into one.

    Attributes:
        names: their checkpoint prefixes.
        num_in: K.
        widths: output features of each.
        bias: whether each has a bias.
    """

    names: tuple[str, ...]
    num_in: int
    widths: tuple[int, ...]
    bias: bool = False

    def parts(self) -> Iterator[tuple[str, int, int]]:
        """(prefix, first row, row after the last) of each."""
        start = 0
        for name, width in zip(self.names, self.widths, strict=True):
            yield name, start, start + width
            start += width

    def split(self) -> "list[ProjectionShape]":
        """Each projection by itself."""
        return [
            ProjectionShape((name,), self.num_in, (width,), self.bias)
            for name, width in zip(self.names, self.widths, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ExpertsShape:
    """A layer's experts, which the checkpoint holds one by one, as `{name}.{expert}.gate_proj` and so on."""

    name: str
    num_experts: int
    hidden_size: int
    intermediate_size: int

    def projections(self) -> Iterator[tuple[str, str, str]]:
        """Checkpoint prefixes of each expert's gate, up and down projection."""
        for expert in range(self.num_experts):
            prefix = f"{self.name}.{expert}"
            yield f"{prefix}.gate_proj", f"{prefix}.up_proj", f"{prefix}.down_proj"


class Linear(KernelModule):
    """One or several projections of the same input, stacked: [T, K] -> [T, sum of their widths]."""

    def __init__(self, shape: ProjectionShape, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        num_out = sum(shape.widths)
        self.weight = parameter((num_out, shape.num_in), dtype)
        self.bias = parameter((num_out,), dtype) if shape.bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, K] -> [T, N]."""
        return self.kernels.linear(hidden, self.weight, self.bias)

    def slots(self) -> Iterator[WeightSlot]:
        """Weights, and biases if any, of every stacked projection."""
        for name, start, stop in self.shape.parts():
            yield ParameterSlot(f"{name}.weight", self, "weight", start, stop)
            if self.bias is not None:
                yield ParameterSlot(f"{name}.bias", self, "bias", start, stop)


class RMSNorm(nn.Module):
    """The scale of a root-mean-square norm."""

    def __init__(self, name: str, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.name = name
        self.weight = parameter((size,), dtype)

    def slots(self) -> Iterator[WeightSlot]:
        """The one weight."""
        yield ParameterSlot(f"{self.name}.weight", self, "weight", 0, self.weight.shape[0])


class Embedding(KernelModule):
    """Token embeddings: ids [T] -> [T, H]."""

    def __init__(self, name: str, vocab_size: int, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.name = name
        self.weight = parameter((vocab_size, hidden_size), dtype)

    def forward(self, token_ids: Tensor) -> Tensor:
        """[T] int64 -> [T, H]."""
        return F.embedding(token_ids, self.weight)

    def as_head(self, hidden: Tensor) -> Tensor:
        """The same matrix as a tied head: [B, H] -> [B, vocab_size]."""
        return self.kernels.linear(hidden, self.weight, None)

    def slots(self) -> Iterator[WeightSlot]:
        """The one weight."""
        yield ParameterSlot(f"{self.name}.weight", self, "weight", 0, self.weight.shape[0])


class ExpertStack(KernelModule):
    """All experts of a layer: gate and up fused [E, 2 * I, H], down [E, H, I]."""

    def __init__(self, shape: ExpertsShape, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        num_experts, hidden, width = shape.num_experts, shape.hidden_size, shape.intermediate_size
        self.gate_up = parameter((num_experts, 2 * width, hidden), dtype)
        self.down = parameter((num_experts, hidden, width), dtype)

    def forward(self, hidden: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """[T, H] -> [T, H]; weights and experts [T, top_k] come from the router."""
        return self.kernels.mixture_of_experts(hidden, weights, experts, self.gate_up, self.down)

    def slots(self) -> Iterator[WeightSlot]:
        """Three tensors per expert."""
        width, hidden = self.shape.intermediate_size, self.shape.hidden_size
        for expert in range(self.shape.num_experts):
            prefix = f"{self.shape.name}.{expert}"
            yield ParameterSlot(f"{prefix}.gate_proj.weight", self, "gate_up", 0, width, expert)
            yield ParameterSlot(f"{prefix}.up_proj.weight", self, "gate_up", width, 2 * width, expert)
            yield ParameterSlot(f"{prefix}.down_proj.weight", self, "down", 0, hidden, expert)


def parameter(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    """Uninitialized storage that is never trained."""
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
