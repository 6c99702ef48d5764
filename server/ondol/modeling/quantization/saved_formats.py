"""Quantized tensors as other libraries store them in a checkpoint: what `ondol quantize` writes.

NF4 and int8 are quantized by the code that quantizes on load, and stored as bitsandbytes stores them.
int4 is GPTQ's storage (version 1), rounded to nearest: no calibration data is looked at, which is less
precise than GPTQ.
Knows nothing about files. Invariant: `encode` returns exactly what `layout` promised.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ondol.kernels.quantized import (
    INT4_ZERO,
    NESTED_BLOCK_SIZE,
    NF4_VALUES,
    QuantizedFormat,
    QuantizedMatrix,
)
from ondol.modeling.checkpoint_writer import PlannedTensor
from ondol.modeling.quantization.on_load import BLOCK_SIZE, INT8_MAX, FourBitBlocks, Int8Rows
from ondol.modeling.quantization.parts import MatrixPart, PartSource
from ondol.modeling.slots import BadTensor

SaveMethod = Literal["nf4", "int8", "int4"]

# bitsandbytes keeps a block's shape and offset as JSON in a tensor. Spaces after it, which JSON allows,
# give it a length that is known before the tensor is quantized.
STATE_BYTES = 256
PACK_FACTOR = 8
INT4_MAX = 15
FLOAT16_TINY = 2.0**-24
QUANTIZABLE = (torch.float32, torch.float16, torch.bfloat16)


class SavedFormat(Protocol):
    """A way to store a quantized projection."""

    def layout(self, prefix: str, shape: tuple[int, int]) -> list[PlannedTensor]:
        """The tensors that stand for `{prefix}.weight` [rows, K]; raises BadTensor if they cannot."""
        ...

    def encode(self, prefix: str, weight: Tensor) -> Mapping[str, Tensor]:
        """Those tensors; raises BadTensor."""
        ...

    def config(self, dtype: str, unquantized: list[str]) -> dict[str, Any]:
        """config.json's quantization_config for a model of this dtype and these modules left alone."""
        ...


@dataclass(frozen=True, slots=True)
class SavedNF4:
    """bitsandbytes' NF4 in blocks of 64 (arXiv:2305.14314)."""

    use_double_quant: bool

    def layout(self, prefix: str, shape: tuple[int, int]) -> list[PlannedTensor]:
        """Packed codes, scales, the codebook, and the state as JSON."""
        rows, num_in = shape
        num_blocks = -(-rows * num_in // BLOCK_SIZE)
        weight = f"{prefix}.weight"
        planned = [
            PlannedTensor(weight, torch.uint8, (-(-rows * num_in // 2), 1)),
            PlannedTensor(f"{weight}.quant_map", torch.float32, (16,)),
            PlannedTensor(f"{weight}.quant_state.bitsandbytes__nf4", torch.uint8, (STATE_BYTES,)),
        ]
        if not self.use_double_quant:
            return [*planned, PlannedTensor(f"{weight}.absmax", torch.float32, (num_blocks,))]
        num_nested = -(-num_blocks // NESTED_BLOCK_SIZE)
        return [
            *planned,
            PlannedTensor(f"{weight}.absmax", torch.uint8, (num_blocks,)),
            PlannedTensor(f"{weight}.nested_absmax", torch.float32, (num_nested,)),
            PlannedTensor(f"{weight}.nested_quant_map", torch.float32, (NESTED_BLOCK_SIZE,)),
        ]

    def encode(self, prefix: str, weight: Tensor) -> Mapping[str, Tensor]:
        """Quantized in the tensor's own dtype, as on load."""
        rows, num_in = weight.shape
        fmt = QuantizedFormat("nf4", BLOCK_SIZE, has_nested_scales=self.use_double_quant)
        matrix = QuantizedMatrix(fmt, (rows,), num_in, is_flat=num_in % BLOCK_SIZE != 0)
        _fill(FourBitBlocks("nf4", self.use_double_quant), prefix, weight, matrix)
        state: dict[str, Any] = {
            "quant_type": "nf4",
            "blocksize": BLOCK_SIZE,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "shape": [rows, num_in],
        }
        name = f"{prefix}.weight"
        tensors = {name: matrix.codes.view(-1, 1), f"{name}.quant_map": torch.tensor(NF4_VALUES)}
        if matrix.nested is None:
            assert matrix.scales is not None
            tensors[f"{name}.absmax"] = matrix.scales.flatten()
        else:
            state["nested_blocksize"] = NESTED_BLOCK_SIZE
            state["nested_dtype"] = "float32"
            state["nested_offset"] = matrix.nested.offsets.item()
            tensors[f"{name}.absmax"] = matrix.nested.codes.flatten()
            tensors[f"{name}.nested_absmax"] = matrix.nested.absmax
            tensors[f"{name}.nested_quant_map"] = matrix.nested.values
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = _padded(state)
        return tensors

    def config(self, dtype: str, unquantized: list[str]) -> dict[str, Any]:
        """As transformers writes it."""
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.use_double_quant,
            "bnb_4bit_compute_dtype": dtype,
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": unquantized,
        }


@dataclass(frozen=True, slots=True)
class SavedInt8:
    """bitsandbytes' LLM.int8: symmetric int8 with a scale per row (arXiv:2208.07339)."""

    def layout(self, prefix: str, shape: tuple[int, int]) -> list[PlannedTensor]:
        """Codes, the rows' largest magnitudes, and the format's number."""
        return [
            PlannedTensor(f"{prefix}.weight", torch.int8, shape),
            PlannedTensor(f"{prefix}.SCB", torch.float32, shape[:1]),
            PlannedTensor(f"{prefix}.weight_format", torch.uint8, ()),
        ]

    def encode(self, prefix: str, weight: Tensor) -> Mapping[str, Tensor]:
        """Quantized after rounding to float16, as on load."""
        rows, num_in = weight.shape
        matrix = QuantizedMatrix(QuantizedFormat("int8", group_size=None), (rows,), num_in)
        _fill(Int8Rows(), prefix, weight, matrix)
        assert matrix.scales is not None
        # The largest magnitudes were float16 before they were divided: rounding restores them exactly.
        absmax = (matrix.scales.flatten() * INT8_MAX).to(torch.float16).float()
        return {
            f"{prefix}.weight": matrix.codes,
            f"{prefix}.SCB": absmax,
            f"{prefix}.weight_format": torch.tensor(0, dtype=torch.uint8),  # rows
        }

    def config(self, dtype: str, unquantized: list[str]) -> dict[str, Any]:
        """As transformers writes it."""
        del dtype
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": False,
            "load_in_8bit": True,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_threshold": 6.0,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_skip_modules": unquantized,
        }


@dataclass(frozen=True, slots=True)
class SavedInt4:
    """GPTQ's storage, symmetric, columns in their own order; rounded to nearest.

    Attributes:
        group_size: weights along K that share a scale; None is one scale per row.
    """

    group_size: int | None

    def layout(self, prefix: str, shape: tuple[int, int]) -> list[PlannedTensor]:
        """Codes packed eight to an int32, along K for weights and along rows for zeros."""
        rows, num_in = shape
        if rows % PACK_FACTOR or num_in % PACK_FACTOR:
            reason = f"has shape {list(shape)}; int4 packs eight rows and eight columns at a time"
            raise BadTensor(f"{prefix}.weight", f"{reason}: leave it out with --skip-modules")
        num_groups = -(-num_in // self._group(num_in))
        return [
            PlannedTensor(f"{prefix}.qweight", torch.int32, (num_in // PACK_FACTOR, rows)),
            PlannedTensor(f"{prefix}.qzeros", torch.int32, (num_groups, rows // PACK_FACTOR)),
            PlannedTensor(f"{prefix}.scales", torch.float16, (num_groups, rows)),
            PlannedTensor(f"{prefix}.g_idx", torch.int32, (num_in,)),
        ]

    def encode(self, prefix: str, weight: Tensor) -> Mapping[str, Tensor]:
        """Every weight becomes the nearest of 16 multiples of its group's scale."""
        _check_dtype(f"{prefix}.weight", weight)
        num_in = weight.shape[1]
        groups = torch.arange(num_in) // self._group(num_in)
        scales = self._scales(f"{prefix}.weight", weight)
        # Rounded by the scale that is stored, so that every code is the nearest one.
        codes = (weight.float() / scales.float()[:, groups]).round_().add_(INT4_ZERO).clamp_(0, INT4_MAX)
        # Version 1 stores zeros less one.
        zeros = torch.full((scales.shape[1], weight.shape[0]), INT4_ZERO - 1, dtype=torch.int32)
        return {
            f"{prefix}.qweight": _pack(codes.to(torch.int32).T),
            f"{prefix}.qzeros": _pack(zeros.T).T.contiguous(),
            f"{prefix}.scales": scales.T.contiguous(),
            f"{prefix}.g_idx": groups.to(torch.int32),
        }

    def config(self, dtype: str, unquantized: list[str]) -> dict[str, Any]:
        """As GPTQ's libraries write it; `meta` says that this is no GPTQ."""
        del dtype
        return {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": self.group_size or -1,
            "sym": True,
            "desc_act": False,
            "static_groups": False,
            "true_sequential": False,
            "checkpoint_format": "gptq",
            "lm_head": "lm_head" not in unquantized,
            "meta": {"quantizer": "ondol", "method": "round-to-nearest, without calibration data"},
        }

    def _group(self, num_in: int) -> int:
        return self.group_size or num_in

    def _scales(self, name: str, weight: Tensor) -> Tensor:
        """[rows, num_groups] float16: the 16 steps span the group's largest magnitude on both sides."""
        parts = torch.split(weight.float(), self._group(weight.shape[1]), dim=1)
        largest = torch.stack([part.abs().amax(dim=1) for part in parts], dim=1)
        scales = (largest * 2 / INT4_MAX).to(torch.float16)
        if not bool(torch.isfinite(scales).all()):
            raise BadTensor(name, "holds weights beyond the range of int4's float16 scales")
        # A group of zeros, or one too small for float16, must not divide by zero.
        return scales.clamp_(min=FLOAT16_TINY)


def saved_format(method: SaveMethod, *, use_double_quant: bool, group_size: int | None) -> SavedFormat:
    """The format of a method; each setting matters to one of them."""
    formats: dict[SaveMethod, SavedFormat] = {
        "nf4": SavedNF4(use_double_quant),
        "int8": SavedInt8(),
        "int4": SavedInt4(group_size),
    }
    return formats[method]


def _check_dtype(name: str, weight: Tensor) -> None:
    if weight.dtype not in QUANTIZABLE:
        raise BadTensor(name, f"holds {weight.dtype}, which is not float32, float16 or bfloat16")


def _fill(source: PartSource, prefix: str, weight: Tensor, matrix: QuantizedMatrix) -> None:
    _check_dtype(f"{prefix}.weight", weight)
    source.fill(prefix, {f"{prefix}.weight": weight}, MatrixPart(matrix, 0))


def _padded(state: Mapping[str, Any]) -> Tensor:
    text = json.dumps(state).encode().ljust(STATE_BYTES)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _pack(codes: Tensor) -> Tensor:
    """[8 * n, m] int32 of 4 bits each -> [n, m] int32, the first of eight in the lowest bits."""
    eights = codes.reshape(-1, PACK_FACTOR, codes.shape[1])
    packed = torch.zeros_like(eights[:, 0])
    for index in range(PACK_FACTOR):
        packed |= eights[:, index] << (4 * index)
    return packed
