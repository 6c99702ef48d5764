"""What bitsandbytes itself makes of a tensor, one tensor at a time.

Dequantizes by hand from its codes and scales: its own CPU operator reads wrong scales where rows are no
multiple of the block.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from bitsandbytes import functional
from bitsandbytes.nn import Int8Params
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK_SIZE = 64
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Oracle:
    """A method as bitsandbytes knows it; `double` is double quantization."""

    method: str
    double: bool = False

    def codes_and_scales(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as bitsandbytes stores them, and float32 scales of rows or blocks."""
        if self.method == "int8":
            quantized = Int8Params(weight, requires_grad=False).to("cpu")
            return quantized.CB, quantized.SCB / 127.0
        packed, state = functional.quantize_4bit(
            weight, blocksize=BLOCK_SIZE, quant_type=self.method, compress_statistics=self.double
        )
        return packed.flatten(), self._scales(state)

    def dequantize(self, weight: Tensor) -> Tensor:
        """The float32 values that the codes stand for."""
        codes, scales = self.codes_and_scales(weight)
        if self.method == "int8":
            return codes.float() * scales[:, None]
        indices = torch.stack((codes >> 4, codes & 15), dim=1).flatten()[: weight.numel()]
        values = functional.get_4bit_type(self.method, device="cpu")[indices.int()]
        return (values * scales.repeat_interleave(BLOCK_SIZE)[: weight.numel()]).view(weight.shape)

    def _scales(self, state: functional.QuantState) -> Tensor:
        if not self.double:
            return state.absmax
        nested = state.state2
        factors = nested.absmax.repeat_interleave(nested.blocksize)[: state.absmax.numel()]
        return nested.code[state.absmax.int()] * factors + state.offset


def save_dequantized(source: Path, folder: Path, oracle: Oracle, *, skipped: tuple[str, ...] = ()) -> Path:
    """A copy of a checkpoint whose projections hold what their quantized forms stand for."""
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        is_skipped = any(part in name for part in skipped)
        if module.endswith(PROJECTIONS) and name != module and not is_skipped:
            tensors[name] = oracle.dequantize(tensor)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
