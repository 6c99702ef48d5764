"""Weight-bearing modules that know their names in a checkpoint.

A module lists its `WeightSlot`s: which checkpoint tensor goes into which part of which parameter.
Projections that read the same input are fused into one matrix, so that a step does one GEMM where
the checkpoint has three. Knows nothing about files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class WeightSlot:
    """The place of one checkpoint tensor.

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

    def view(self) -> Tensor:
        """The part of the parameter that this tensor fills."""
        target: Tensor = getattr(self.module, self.parameter)
        if self.expert is not None:
            target = target[self.expert]
        return target[self.start : self.stop]


class Linear(nn.Module):
    """One or several projections of the same input, stacked: [T, K] -> [T, sum of their widths].

    Args:
        names: checkpoint prefixes of the stacked projections.
        num_in: K.
        widths: output features of each.
        bias: whether each has a bias.
    """

    def __init__(self, names: Sequence[str], num_in: int, widths: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.names = tuple(names)
        self.widths = tuple(widths)
        self.weight = _parameter(sum(widths), num_in)
        self.bias = _parameter(sum(widths)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, K] -> [T, N]."""
        return F.linear(hidden, self.weight, self.bias)

    def slots(self) -> Iterator[WeightSlot]:
        """Weights, and biases if any, of every stacked projection."""
        start = 0
        for name, width in zip(self.names, self.widths, strict=True):
            yield WeightSlot(f"{name}.weight", self, "weight", start, start + width)
            if self.bias is not None:
                yield WeightSlot(f"{name}.bias", self, "bias", start, start + width)
            start += width


class RMSNorm(nn.Module):
    """The scale of a root-mean-square norm."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        self.name = name
        self.weight = _parameter(size)

    def slots(self) -> Iterator[WeightSlot]:
        """The one weight."""
        yield WeightSlot(f"{self.name}.weight", self, "weight", 0, self.weight.shape[0])


class Embedding(nn.Module):
    """Token embeddings: ids [T] -> [T, H]."""

    def __init__(self, name: str, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.name = name
        self.weight = _parameter(vocab_size, hidden_size)

    def forward(self, token_ids: Tensor) -> Tensor:
        """[T] int64 -> [T, H]."""
        return F.embedding(token_ids, self.weight)

    def slots(self) -> Iterator[WeightSlot]:
        """The one weight."""
        yield WeightSlot(f"{self.name}.weight", self, "weight", 0, self.weight.shape[0])


class ExpertStack(nn.Module):
    """All experts of a layer: gate and up fused [E, 2 * I, H], down [E, H, I].

    The checkpoint holds them one by one, as `{name}.{expert}.gate_proj` and so on.
    """

    def __init__(self, name: str, num_experts: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.name = name
        self.intermediate_size = intermediate_size
        self.gate_up = _parameter(num_experts, 2 * intermediate_size, hidden_size)
        self.down = _parameter(num_experts, hidden_size, intermediate_size)

    def slots(self) -> Iterator[WeightSlot]:
        """Three tensors per expert."""
        width = self.intermediate_size
        for expert in range(self.gate_up.shape[0]):
            prefix = f"{self.name}.{expert}"
            yield WeightSlot(f"{prefix}.gate_proj.weight", self, "gate_up", 0, width, expert)
            yield WeightSlot(f"{prefix}.up_proj.weight", self, "gate_up", width, 2 * width, expert)
            yield WeightSlot(f"{prefix}.down_proj.weight", self, "down", 0, self.down.shape[1], expert)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape), requires_grad=False)
