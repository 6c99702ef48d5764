"""A checkpoint of which only the headers are here.

How a quantized module is stored depends on a few small tensors: the order of its columns, the state beside
4-bit codes. Their contents follow from config.json and from the other headers, and are stood in for here.
Knows nothing about models. The invariant: contents of weights are never made up.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondol.kernels.quantized import FP4_VALUES, NESTED_BLOCK_SIZE, NF4_VALUES
from ondol.modeling.checkpoint import Checkpoint

STATE = ".quant_state.bitsandbytes__"
MIN_BLOCK_SIZE = 32
HEADER_BYTES = {"F64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1}


class HeaderCheckpoint(Checkpoint):
    """As `Checkpoint`, over files without contents.

    Columns are taken to be in order, or in one other order for all modules where config.json says that they
    were sorted (desc_act): tools sort the projections of one input alike.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._settings = _weight_settings(config)

    def tensor(self, name: str) -> Tensor:
        """What the tensor must hold, by its name; others are zeros, as in the empty file, in float32."""
        if name.endswith("g_idx"):
            return self._column_groups(self.shape_of(name)[0])
        if STATE in name:
            return self._state(name)
        if name.endswith(".weight.quant_map"):
            return torch.tensor(FP4_VALUES if self._is_fp4(name) else NF4_VALUES)
        return torch.zeros((), device="cpu").expand(self.shape_of(name))

    def _column_groups(self, num_columns: int) -> Tensor:
        group_size = self._settings.get("group_size")
        groups = torch.arange(num_columns, dtype=torch.int32)
        groups //= num_columns if group_size in (None, -1) else group_size
        is_sorted = bool(self._settings.get("desc_act") or self._settings.get("actorder"))
        return groups.flip(0) if is_sorted else groups

    def _state(self, name: str) -> Tensor:
        weight_name, _, method = name.partition(STATE)
        nested = f"{weight_name}.nested_absmax" in self.names
        state = {
            "quant_type": method,
            "blocksize": self._block_size(weight_name),
            "shape": [],
            "nested_blocksize": NESTED_BLOCK_SIZE,
            "nested_offset": 0.0 if nested else None,
        }
        return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    def _block_size(self, weight_name: str) -> int:
        """Weights that share a scale: a power of two, whole blocks but for the last."""
        num_weights = 2 * self._num_bytes(weight_name)
        num_blocks = math.prod(self.shape_of(f"{weight_name}.absmax"))
        return max(MIN_BLOCK_SIZE, 1 << (num_weights // max(1, num_blocks) - 1).bit_length())

    def _is_fp4(self, codebook_name: str) -> bool:
        return f"{codebook_name.removesuffix('.quant_map')}{STATE}fp4" in self.names

    def _num_bytes(self, name: str) -> int:
        return math.prod(self.shape_of(name)) * HEADER_BYTES[self.dtype_of(name)]


def _weight_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The options that say how weights are stored; compressed-tensors nests them in its one group."""
    settings = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(settings, dict):
        return {}
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        return settings
    weights: dict[str, Any] = next(iter(groups.values())).get("weights") or {}
    return weights
