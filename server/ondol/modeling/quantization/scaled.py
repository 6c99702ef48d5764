"""Weights stored one to a byte (fp8 e4m3, int8) beside their scales: per tensor, row, group or block.

What compressed-tensors calls naive, float or int quantized, and what `quant_method: fp8` means. Scales
of blocks are repeated for each row of the block. Knows nothing about config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ondol.kernels.quantized import QuantizedFormat
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage, scale_dtype
from ondol.modeling.quantization.integers import check_integers
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import BadTensor, check_shape, check_weights

Kind = Literal["fp8_e4m3", "int8"]
HEADERS: dict[Kind, str] = {"fp8_e4m3": "F8_E4M3", "int8": "I8"}


@dataclass(frozen=True, slots=True)
class ScaledWeights:
    """A CheckpointFormat, but for `unused`.

    Attributes:
        kind: what the bytes are.
        block: (rows, columns) that share a scale; None for a side is all of it. (None, None) is one
            scale for the tensor, (1, None) one per row.
        has_zeros: int8 with zero points, which lie as the scales do.
        scale_names: names that the scales may have, without the module's.
    """

    checkpoint: Checkpoint
    kind: Kind
    block: tuple[int | None, int | None]
    has_zeros: bool = False
    scale_names: tuple[str, ...] = ("weight_scale",)

    def is_quantized(self, prefix: str) -> bool:
        """Whether the weight has the quantized dtype, or a scale."""
        names = self.checkpoint.names
        if any(f"{prefix}.{scale}" in names for scale in self.scale_names):
            return True
        name = f"{prefix}.weight"
        return name in names and self.checkpoint.dtype_of(name) == HEADERS[self.kind]

    def names(self, prefix: str) -> tuple[str, ...]:
        """Weight, scale and zeros."""
        zeros = (f"{prefix}.weight_zero_point",) if self.has_zeros else ()
        return (f"{prefix}.weight", self._scale_name(prefix), *zeros)

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads headers only."""
        del num_out
        columns = self.block[1]
        fmt = QuantizedFormat(
            self.kind,
            None if columns is None or columns >= num_in else columns,
            has_zeros=self.has_zeros,
            scale_dtype=scale_dtype(self.checkpoint, self._scale_name(prefix)),
        )
        return Storage(fmt)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Copy the bytes, spread the scales; raises BadTensor."""
        name, scale_name, zeros_name = (
            f"{prefix}.weight",
            self._scale_name(prefix),
            f"{prefix}.weight_zero_point",
        )
        weight, scale = tensors[name], tensors[scale_name]
        if self.kind == "int8":
            check_integers(name, weight, part.source_shape, (torch.int8,))
        else:
            check_shape(name, weight, part.source_shape)
            if weight.dtype is not torch.float8_e4m3fn:
                raise BadTensor(name, f"holds {weight.dtype}, not torch.float8_e4m3fn")
            check_weights(name, weight, part.source_shape)
        part.codes().copy_(weight)
        grid = self._grid(scale_name, scale, part)
        check_weights(scale_name, grid, tuple(grid.shape))
        part.scales().copy_(self._spread(grid, part))
        if self.has_zeros:
            zeros = tensors[zeros_name]
            if zeros.is_floating_point() or int(zeros.min()) < -128 or int(zeros.max()) > 127:
                raise BadTensor(zeros_name, "holds zero points that are no 8-bit integers")
            part.zeros().copy_(self._spread(self._grid(zeros_name, zeros, part), part))

    def _grid(self, name: str, values: Tensor, part: MatrixPart) -> Tensor:
        """[row blocks, column blocks] of a tensor that may lack dimensions of length one."""
        num_out, num_in = part.source_shape
        rows, columns = self.block
        wanted = (1 if rows is None else -(-num_out // rows), 1 if columns is None else -(-num_in // columns))
        if values.dim() < 2 and 1 in wanted and values.numel() == wanted[0] * wanted[1]:
            return values.reshape(wanted)
        check_shape(name, values, wanted)
        return values

    def _spread(self, grid: Tensor, part: MatrixPart) -> Tensor:
        """[rows, num_groups]."""
        num_out, _ = part.source_shape
        return grid.repeat_interleave(self.block[0] or num_out, dim=0)[:num_out]

    def _scale_name(self, prefix: str) -> str:
        names = [f"{prefix}.{scale}" for scale in self.scale_names]
        return next((name for name in names if name in self.checkpoint.names), names[0])
