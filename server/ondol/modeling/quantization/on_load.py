"""Quantizes full-precision weights while they stream in, as bitsandbytes would.

Each source tensor is quantized by itself, in its own dtype and as it lies in the checkpoint, so that
fused and stacked weights hold bit for bit what bitsandbytes makes of each tensor alone. Where we differ
from LLM.int8: weights are stored the same way, but activations are not quantized. Large tensors are
quantized piece by piece, so that scratch does not grow with them.
"""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from ondol.errors import ModelRefused
from ondol.kernels.quantized import (
    FP4_VALUES,
    NESTED_BLOCK_SIZE,
    NF4_VALUES,
    QuantizedFormat,
    QuantizedMatrix,
)
from ondol.modeling.layer_factory import Experts, PlainLayers, Projection
from ondol.modeling.layers import ExpertsShape, ProjectionShape
from ondol.modeling.quantization.four_bit import quantize_blocks
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear, SplitProjection
from ondol.modeling.quantization.parts import MatrixPart, PartSource
from ondol.modeling.slots import BadTensor, check_weights

Method = Literal["int8", "nf4", "fp4"]

METHODS: Mapping[str, Method] = MappingProxyType({"int8": "int8", "nf4": "nf4", "fp4": "fp4"})

BLOCK_SIZE = 64
INT8_MAX = 127.0
# Weights that are quantized to int8 at once: each takes 8 bytes of scratch.
PIECE_WEIGHTS = 1 << 20


@dataclass(frozen=True, slots=True)
class OnLoad:
    """How to quantize: the fields of transformers' BitsAndBytesConfig that matter here.

    Attributes:
        method: "int8" (rows, as LLM.int8 stores them), "nf4" or "fp4" (blocks of 64).
        compute_dtype: dtype of the products in 4 bits; None is the model's.
        use_double_quant: quantize the scales of 4-bit blocks again.
        skip_modules: names, or parts of names, of modules that stay as they are.
        quantize_head: quantize lm_head too.
        storage_dtype: dtype of the tensors that 4-bit codes are packed in.
    """

    method: Method
    compute_dtype: torch.dtype | None = None
    use_double_quant: bool = False
    skip_modules: tuple[str, ...] = ()
    quantize_head: bool = False
    storage_dtype: torch.dtype = torch.uint8

    def skips(self, name: str) -> bool:
        """Whether a module stays as it is: its whole name, a prefix or a component is listed."""
        return any(
            name == skipped or name.startswith(f"{skipped}.") or f".{skipped}." in f".{name}."
            for skipped in self.skip_modules
        )


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """LLM.int8's storage: symmetric int8 per row, scale = absmax / 127 (arXiv:2208.07339)."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """The full-precision weight."""
        return (f"{prefix}.weight",)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Quantize by rows, after rounding to float16 as bitsandbytes does; raises BadTensor."""
        name = f"{prefix}.weight"
        weight = tensors[name]
        check_weights(name, weight, part.source_shape)
        all_codes, all_scales = part.codes(), part.scales()
        num_rows = max(1, PIECE_WEIGHTS // weight.shape[1])
        for start in range(0, weight.shape[0], num_rows):
            rows = slice(start, start + num_rows)
            rounded = weight[rows].to(torch.float16)
            absmax = rounded.abs().amax(dim=1, keepdim=True).float()
            if not bool(absmax.isfinite().all()):
                raise BadTensor(name, "holds values beyond float16, which int8 quantization rounds to")
            # A row of zeros has no scale: divided by it, its codes would be no numbers.
            factors = (INT8_MAX / absmax).masked_fill_(absmax == 0, 0.0)
            all_codes[rows].copy_((rounded * factors).round_())
            all_scales[rows].copy_(absmax / INT8_MAX)


@dataclass(frozen=True, slots=True)
class FourBitBlocks:
    """NF4 or FP4 in blocks of 64, with or without double quantization (arXiv:2305.14314)."""

    method: Literal["nf4", "fp4"]
    use_double_quant: bool

    def names(self, prefix: str) -> tuple[str, ...]:
        """The full-precision weight."""
        return (f"{prefix}.weight",)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Quantize one source tensor; raises BadTensor."""
        name = f"{prefix}.weight"
        weight = tensors[name]
        check_weights(name, weight, part.source_shape)
        absmax = self._quantize_blocks(weight.contiguous().view(-1), part.codes().view(-1))
        if self.use_double_quant:
            offset = absmax.mean()
            codes, state = _bitsandbytes().quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK_SIZE)
            part.set_nested_scales(codes, state.absmax, offset, state.code)
        else:
            scales = part.scales()
            scales.copy_(absmax.view(scales.shape))

    def _quantize_blocks(self, weights: Tensor, codes: Tensor) -> Tensor:
        """Write the codes of [n] weights to [ceil(n / 2)]; returns the largest magnitude of each block."""
        whole = weights.numel() // BLOCK_SIZE * BLOCK_SIZE
        values = torch.tensor(NF4_VALUES if self.method == "nf4" else FP4_VALUES)
        absmax = quantize_blocks(weights[:whole], values, BLOCK_SIZE, codes[: whole // 2])
        if whole == weights.numel():
            return absmax
        # bitsandbytes scales a block that is cut short by another formula.
        packed, state = _bitsandbytes().quantize_4bit(
            weights[whole:], blocksize=BLOCK_SIZE, quant_type=self.method
        )
        codes[whole // 2 :].copy_(packed.view(-1))
        return torch.cat((absmax, state.absmax))


class OnLoadLayers:
    """A LayerFactory that quantizes what `OnLoad` says and leaves the rest as it is."""

    def __init__(self, settings: OnLoad, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._settings = settings
        self._plain = PlainLayers(dtype)
        self._compute_dtype = settings.compute_dtype or dtype
        self._format = _format_of(settings)
        self._source = _source_of(settings)

    def projection(self, shape: ProjectionShape) -> Projection:
        """Fused if every part is quantized and blocks end with the rows; else side by side."""
        skipped = [self._settings.skips(name) for name in shape.names]
        if all(skipped):
            return self._plain.projection(shape)
        is_flat = self._is_flat(shape.num_in)
        if len(shape.names) > 1 and (is_flat or any(skipped)):
            return SplitProjection([self.projection(part) for part in shape.split()])
        matrix = self._matrix(shape.names[0], shape.widths, shape.num_in)
        return QuantizedLinear(shape, matrix, self._source, self.dtype, self._compute_dtype)

    def experts(self, shape: ExpertsShape) -> Experts:
        """Stacks; gate and up apart where blocks run across rows."""
        if self._skips_experts(shape):
            return self._plain.experts(shape)
        hidden, width = shape.hidden_size, shape.intermediate_size
        if self._is_flat(hidden):
            gate_up = [self._stack(shape, (width,), hidden), self._stack(shape, (width,), hidden)]
        else:
            gate_up = [self._stack(shape, (width, width), hidden)]
        down = self._stack(shape, (hidden,), width)
        return QuantizedExperts(shape, gate_up, down, self._source, self._compute_dtype)

    def head(self, shape: ProjectionShape) -> Projection:
        """Quantized only if asked for."""
        return self.projection(shape) if self._settings.quantize_head else self._plain.head(shape)

    def router(self, shape: ProjectionShape) -> Projection:
        """Never quantized: tiny, and it decides where rows go."""
        return self._plain.router(shape)

    def _stack(self, shape: ExpertsShape, part_rows: tuple[int, ...], num_in: int) -> QuantizedMatrix:
        return self._matrix(shape.name, part_rows, num_in, shape.num_experts)

    def _matrix(
        self, name: str, part_rows: tuple[int, ...], num_in: int, num_experts: int | None = None
    ) -> QuantizedMatrix:
        is_flat = self._is_flat(num_in)
        fmt = self._format
        if fmt.code_bytes(num_in * part_rows[0] if is_flat else num_in) % fmt.container.itemsize:
            raise ModelRefused(
                f"{name}: {part_rows[0]} x {num_in} 4-bit codes do not fill whole elements of "
                f"{fmt.container}; set bnb_4bit_quant_storage to uint8"
            )
        return QuantizedMatrix(fmt, part_rows, num_in, num_experts, is_flat=is_flat)

    def _skips_experts(self, shape: ExpertsShape) -> bool:
        names = [name for expert in shape.projections() for name in expert]
        skipped = [name for name in names if self._settings.skips(name)]
        if skipped and len(skipped) < len(names):
            raise ModelRefused(
                f"llm_int8_skip_modules names {skipped[0]}, but not all of {shape.name}: "
                "the experts of a layer are quantized together or not at all"
            )
        return bool(skipped)

    def _is_flat(self, num_in: int) -> bool:
        return self._format.group_size is not None and num_in % self._format.group_size != 0


def _bitsandbytes() -> Any:
    """bitsandbytes' functions, imported late: it takes a second, and only such a load needs it."""
    # It warns of kernels for training and inference that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return importlib.import_module("bitsandbytes.functional")


def _format_of(settings: OnLoad) -> QuantizedFormat:
    if settings.method == "int8":
        return QuantizedFormat("int8", group_size=None)
    return QuantizedFormat(
        settings.method,
        BLOCK_SIZE,
        has_nested_scales=settings.use_double_quant,
        storage_dtype=settings.storage_dtype,
    )


def _source_of(settings: OnLoad) -> PartSource:
    if settings.method == "int8":
        return Int8Rows()
    return FourBitBlocks(settings.method, settings.use_double_quant)
