"""The layers of a checkpoint that comes quantized, whatever its format.

A module is quantized exactly if the checkpoint holds its quantized tensors. Projections are fused where
their storage agrees, columns' order included. Knows nothing about how a format packs its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ondol.errors import ModelRefused
from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.layer_factory import Experts, PlainLayers, Projection
from ondol.modeling.layers import ExpertsShape, ProjectionShape
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear, SplitProjection
from ondol.modeling.quantization.parts import PartSource
from ondol.modeling.slots import BadTensor

DTYPES_BY_HEADER = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Storage:
    """What must agree for two source tensors to share a matrix.

    Attributes:
        format: codes and scales.
        is_flat: groups run across the ends of rows; such a matrix has one part.
        column_order: bytes of the columns' order, if they do not lie in the order of their groups.
        nested_values: bytes of the codebook of doubly quantized scales.
    """

    format: QuantizedFormat
    is_flat: bool = False
    column_order: bytes | None = None
    nested_values: bytes | None = None

    @staticmethod
    def order_key(order: Tensor | None) -> bytes | None:
        """A columns' order, to compare."""
        return None if order is None else order.numpy().tobytes()


class CheckpointFormat(PartSource, Protocol):
    """A format that checkpoints come in, over one checkpoint."""

    def is_quantized(self, prefix: str) -> bool:
        """Whether the checkpoint holds quantized tensors of this module."""
        ...

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """How a quantized module is stored; reads headers and small tensors. Raises BadTensor."""
        ...

    def unused(self) -> frozenset[str]:
        """Tensors that the format carries and Ondol does not need."""
        ...


class CheckpointLayers:
    """A LayerFactory that makes what the checkpoint holds.

    Args:
        source: its format.
        checkpoint: the checkpoint.
        dtype: of hidden states, products and everything that is not quantized.
    """

    def __init__(self, source: CheckpointFormat, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._source = source
        self._checkpoint = checkpoint
        self._plain = PlainLayers(dtype)
        self._zero_biases: set[str] = set()

    @property
    def ignored(self) -> frozenset[str]:
        """Tensors that may stay unread; complete once the model is built."""
        return self._source.unused() | self._zero_biases

    def projection(self, shape: ProjectionShape) -> Projection:
        """Fused where the storage of all parts agrees; else side by side.

        Raises:
            ModelRefused: a tensor that tells how the module is stored is missing or wrong.
        """
        quantized = [self._source.is_quantized(name) for name in shape.names]
        if not any(quantized):
            return self._plain.projection(shape)
        if not all(quantized):
            return self._split(shape)
        storages = [
            self._storage(name, width, shape.num_in)
            for name, width in zip(shape.names, shape.widths, strict=True)
        ]
        first = storages[0]
        if len(storages) > 1 and (first.is_flat or any(storage != first for storage in storages)):
            return self._split(shape)
        if not shape.bias:
            self._expect_no_bias(shape.names)
        matrix = QuantizedMatrix(first.format, shape.widths, shape.num_in, is_flat=first.is_flat)
        if first.column_order is not None:
            matrix.reorder_columns()
        return QuantizedLinear(shape, matrix, self._source, self.dtype, self.dtype)

    def head(self, shape: ProjectionShape) -> Projection:
        """As any other projection."""
        return self.projection(shape)

    def router(self, shape: ProjectionShape) -> Projection:
        """As any other projection: some tools quantize routers too."""
        return self.projection(shape)

    def experts(self, shape: ExpertsShape) -> Experts:
        """Stacks of matrices; gate and up fused where every expert's pair agrees.

        Raises:
            ModelRefused: as `projection`, or the experts are stored in different formats.
        """
        names = {part: self._expert_names(shape, part) for part in ("gate_proj", "up_proj", "down_proj")}
        if not any(self._source.is_quantized(name) for part in names.values() for name in part):
            return self._plain.experts(shape)
        for part in names.values():
            self._expect_no_bias(part)
        hidden, width = shape.hidden_size, shape.intermediate_size
        gate = [self._storage(name, width, hidden) for name in names["gate_proj"]]
        up = [self._storage(name, width, hidden) for name in names["up_proj"]]
        down = [self._storage(name, hidden, width) for name in names["down_proj"]]
        if gate == up and not gate[0].is_flat:
            gate_up = [self._stack(shape, gate, (width, width), hidden)]
        else:
            gate_up = [self._stack(shape, storages, (width,), hidden) for storages in (gate, up)]
        down_stack = self._stack(shape, down, (hidden,), width)
        return QuantizedExperts(shape, gate_up, down_stack, self._source, self.dtype)

    def _split(self, shape: ProjectionShape) -> Projection:
        return SplitProjection([self.projection(part) for part in shape.split()])

    def _stack(
        self, shape: ExpertsShape, storages: Sequence[Storage], part_rows: tuple[int, ...], num_in: int
    ) -> QuantizedMatrix:
        first = replace(storages[0], column_order=None)
        if any(replace(storage, column_order=None) != first for storage in storages):
            folder = self._checkpoint.folder
            raise ModelRefused(f"{folder}: the experts {shape.name} are not all quantized in one format")
        matrix = QuantizedMatrix(first.format, part_rows, num_in, shape.num_experts, is_flat=first.is_flat)
        if any(storage.column_order is not None for storage in storages):
            matrix.reorder_columns()
        return matrix

    def _storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        self._checkpoint.require(self._source.names(prefix))
        try:
            with torch.device("cpu"):  # models are built on the meta device, but tensors are read here
                return self._source.storage(prefix, num_out, num_in)
        except BadTensor as error:
            raise self._checkpoint.refusal(error.name, error.reason) from error

    def _expect_no_bias(self, prefixes: Sequence[str]) -> None:
        """Some tools write a bias for every module they quantize: it must be zero where there is none."""
        for name in (f"{prefix}.bias" for prefix in prefixes):
            if name in self._checkpoint.names:
                if bool(self._checkpoint.tensor(name).any()):
                    raise self._checkpoint.refusal(name, "is a bias that this model does not have")
                self._zero_biases.add(name)

    @staticmethod
    def _expert_names(shape: ExpertsShape, part: str) -> list[str]:
        return [f"{shape.name}.{expert}.{part}" for expert in range(shape.num_experts)]


def scale_dtype(checkpoint: Checkpoint, name: str) -> torch.dtype:
    """The dtype that scales are kept in: the file's; raises BadTensor if they are no plain floats."""
    header = checkpoint.dtype_of(name)
    if header not in DTYPES_BY_HEADER:
        raise BadTensor(name, f"holds {header}, not floating-point scales")
    dtype = DTYPES_BY_HEADER[header]
    return torch.float32 if dtype is torch.float64 else dtype
