"""Packers, as those in `packers`, of formats whose codes are no integers with zeros: fp8 and bitsandbytes'.

bitsandbytes' tensors are made by the library itself; what they stand for is computed here, in float64.
"""

from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes import functional as bitsandbytes


def to_float8(
    weight: torch.Tensor, block: tuple[int, int], scale_dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(e4m3 codes, scales [row blocks, column blocks], what they stand for in float64)."""
    num_out, num_in = weight.shape
    rows, columns = torch.arange(num_out) // block[0], torch.arange(num_in) // block[1]
    scales = torch.zeros(int(rows[-1]) + 1, int(columns[-1]) + 1, dtype=torch.float64)
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            scales[row, column] = weight[rows == row][:, columns == column].abs().max() / 448
    scales = scales.to(scale_dtype)
    spread = scales.double()[rows][:, columns]
    codes = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scales, codes.double() * spread


@dataclass
class Float8:
    """compressed-tensors' float- or naive-quantized e4m3."""

    strategy: str = "channel"
    format: str = "float-quantized"
    activations: str = "dynamic"
    scale_dtype: torch.dtype = torch.bfloat16

    @property
    def config(self) -> dict[str, Any]:
        block = [16, 32] if self.strategy == "block" else None
        weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": self.strategy}
        group = {
            "targets": ["Linear"],
            "weights": {**weights, "block_structure": block},
            "input_activations": {"num_bits": 8, "type": "float", "dynamic": self.activations == "dynamic"},
        }
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        num_out, num_in = weight.shape
        block = {"tensor": (num_out, num_in), "channel": (1, num_in), "block": (16, 32)}[self.strategy]
        codes, scales, value = to_float8(weight, block, self.scale_dtype)
        tensors = {
            f"{prefix}.weight": codes,
            f"{prefix}.weight_scale": scales.reshape(1) if self.strategy == "tensor" else scales,
        }
        if self.activations == "static":
            tensors[f"{prefix}.input_scale"] = torch.ones(1)
        return tensors, value


@dataclass
class BlockFP8:
    """`quant_method: fp8`; block None is one scale for the tensor."""

    block: tuple[int, int] | None = (32, 64)
    activations: str = "dynamic"

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": self.activations,
            "weight_block_size": None if self.block is None else list(self.block),
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        num_out, num_in = weight.shape
        codes, scales, value = to_float8(weight, self.block or (num_out, num_in), torch.float32)
        if self.block is not None:
            return {f"{prefix}.weight": codes, f"{prefix}.weight_scale_inv": scales}, value
        scale = {f"{prefix}.weight_scale": scales.reshape(())}
        activation = {f"{prefix}.input_scale": torch.ones(())} if self.activations == "static" else {}
        return {f"{prefix}.weight": codes, **scale, **activation}, value


@dataclass
class BitsAndBytes4Bit:
    """Saved by bitsandbytes itself; dequantized here by the definition."""

    quant_type: str = "nf4"
    double: bool = False
    block_size: int = 64
    storage: torch.dtype = torch.uint8

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": self.quant_type,
            "bnb_4bit_use_double_quant": self.double,
            "bnb_4bit_compute_dtype": "bfloat16",
            "llm_int8_skip_modules": None,
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        packed, state = bitsandbytes.quantize_4bit(
            weight.float(),
            blocksize=self.block_size,
            compress_statistics=self.double,
            quant_type=self.quant_type,
            quant_storage=self.storage,
        )
        saved = {f"{prefix}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        pairs = packed.view(torch.uint8).flatten()
        codes = torch.stack([pairs // 16, pairs % 16], dim=1).flatten()[: weight.numel()]
        scales = state.absmax.double()
        if self.double:
            blocks = torch.arange(scales.numel()) // state.state2.blocksize
            nested = state.state2.code.double()[state.absmax.long()] * state.state2.absmax.double()[blocks]
            scales = nested + state.offset.double()
        spread = scales[torch.arange(weight.numel()) // self.block_size]
        value = state.code.double()[codes.long()] * spread
        return {f"{prefix}.weight": packed, **saved}, value.view(weight.shape)


@dataclass
class BitsAndBytes8Bit:
    """LLM.int8's rows, quantized by bitsandbytes itself."""

    has_format: bool = True

    @property
    def config(self) -> dict[str, Any]:
        return {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        codes, absmax, _ = bitsandbytes.int8_vectorwise_quant(weight.half())
        tensors = {f"{prefix}.weight": codes, f"{prefix}.SCB": absmax.float()}
        if self.has_format:
            tensors[f"{prefix}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
        return tensors, codes.double() * absmax.double()[:, None] / 127
