"""Projections and experts over quantized matrices.

Knows shapes and slots; what a code means is the kernels' business, where it comes from a source's.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ondol.kernels.quantized import QuantizedMatrix
from ondol.modeling.kernel_module import KernelModule
from ondol.modeling.layer_factory import Projection
from ondol.modeling.layers import ExpertsShape, ProjectionShape, parameter
from ondol.modeling.quantization.parts import MatrixPart, PartSlot, PartSource
from ondol.modeling.slots import ParameterSlot, WeightSlot


class QuantizedLinear(KernelModule):
    """One or several fused projections: [.., K] -> [.., sum of their widths].

    Args:
        shape: the projections.
        matrix: their storage, one part each.
        source: where the parts come from.
        dtype: of hidden states and biases.
        compute_dtype: of the product; other inputs are cast and the result cast back.
    """

    def __init__(
        self,
        shape: ProjectionShape,
        matrix: QuantizedMatrix,
        source: PartSource,
        dtype: torch.dtype,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.matrix = matrix
        self.compute_dtype = compute_dtype
        self.bias = parameter((sum(shape.widths),), dtype) if shape.bias else None
        self._source = source

    def forward(self, hidden: Tensor) -> Tensor:
        """[.., K] -> [.., N], in the dtype of `hidden`."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        product = self.kernels.quantized_linear(hidden.to(self.compute_dtype), self.matrix, bias)
        return product.to(hidden.dtype)

    def slots(self) -> Iterator[WeightSlot]:
        """Codes and biases of every projection."""
        for index, (name, start, stop) in enumerate(self.shape.parts()):
            yield PartSlot(name, self._source, MatrixPart(self.matrix, index))
            if self.bias is not None:
                yield ParameterSlot(f"{name}.bias", self, "bias", start, stop)


class SplitProjection(nn.Module):
    """Projections of the same input that could not be fused, side by side."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projections)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        """[.., K] -> [.., sum of widths]."""
        return torch.cat([projection(hidden) for projection in self.projections], dim=-1)

    def slots(self) -> Iterator[WeightSlot]:
        """None of its own: its projections are found as modules."""
        return iter(())


class QuantizedExperts(KernelModule):
    """A layer's experts over stacks of quantized matrices.

    Args:
        shape: sizes and names.
        gate_up: one stack with two parts, or two stacks, gate and up.
        down: the third stack.
        source: where the parts come from.
        compute_dtype: of the products.
    """

    def __init__(
        self,
        shape: ExpertsShape,
        gate_up: Sequence[QuantizedMatrix],
        down: QuantizedMatrix,
        source: PartSource,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.gate_up = nn.ModuleList(gate_up)
        self.down = down
        self.compute_dtype = compute_dtype
        self._source = source

    def forward(self, hidden: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """[T, H] -> [T, H]; weights and experts [T, top_k] come from the router."""
        wide = hidden.to(self.compute_dtype)
        *gate_up, down = self.stacks()
        output = self.kernels.quantized_mixture_of_experts(
            wide, weights.to(self.compute_dtype), experts, gate_up, down
        )
        return output.to(hidden.dtype)

    def stacks(self) -> list[QuantizedMatrix]:
        """Gate and up, fused or apart, then down."""
        return [*self.gate_up, self.down]

    def slots(self) -> Iterator[WeightSlot]:
        """Gate, up and down of every expert."""
        for expert in range(self.shape.num_experts):
            prefix = f"{self.shape.name}.{expert}"
            for name, part in zip(("gate_proj", "up_proj"), self._gate_up_parts(expert), strict=True):
                yield PartSlot(f"{prefix}.{name}", self._source, part)
            yield PartSlot(f"{prefix}.down_proj", self._source, MatrixPart(self.down, 0, expert))

    def _gate_up_parts(self, expert: int) -> list[MatrixPart]:
        *gate_up, _ = self.stacks()
        if len(gate_up) == 1:
            return [MatrixPart(gate_up[0], index, expert) for index in range(2)]
        return [MatrixPart(stack, 0, expert) for stack in gate_up]
