"""Which format a checkpoint is quantized in, from its config.json; unsupported ones are refused by name.

Reads JSON, no weights: what is refused here costs nothing. Knows nothing about tensors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ondol.errors import ModelRefused
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.awq import AWQSettings
from ondol.modeling.quantization.bitsandbytes_checkpoint import BitsAndBytesSettings
from ondol.modeling.quantization.checkpoint_layers import CheckpointFormat, CheckpointLayers
from ondol.modeling.quantization.compressed_tensors import METHOD as COMPRESSED_TENSORS
from ondol.modeling.quantization.compressed_tensors import CompressedTensorsSettings
from ondol.modeling.quantization.fp8 import FP8Settings
from ondol.modeling.quantization.gptq import GPTQSettings

CONFIG_KEYS = ("quantization_config", "compression_config")


class FormatSettings(Protocol):
    """What config.json says about one format, checked."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about such a load."""
        ...

    def open(self, checkpoint: Checkpoint) -> CheckpointFormat:
        """The format over a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointQuantization:
    """How a checkpoint is quantized.

    Attributes:
        method: its name: "gptq", "awq", "compressed-tensors", "fp8" or "bitsandbytes".
        settings: its options.
    """

    method: str
    settings: FormatSettings

    def layers(self, checkpoint: Checkpoint, dtype: torch.dtype) -> CheckpointLayers:
        """The factory that builds what the checkpoint holds."""
        return CheckpointLayers(self.settings.open(checkpoint), checkpoint, dtype)


def read_quantization(folder: Path) -> CheckpointQuantization | None:
    """How the checkpoint in a folder is quantized; None if it is not. Its config.json is valid JSON.

    Raises:
        ModelRefused: a method or an option that Ondol does not read, by name.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    key = next((key for key in CONFIG_KEYS if config.get(key) is not None), None)
    if key is None:
        return None
    raw = config[key]
    if not isinstance(raw, dict):
        raise ModelRefused(f"the checkpoint is quantized, but {key} in its config.json is no object")
    method = _method(raw, key)
    parse = _parsers().get(method)
    if parse is None:
        given = raw.get("quant_method", "an unknown method")
        known = ", ".join(_parsers())
        raise ModelRefused(
            f"the checkpoint is quantized with {given}, which Ondol does not read; it reads {known}"
        )
    return CheckpointQuantization(method, parse(raw))


def _parsers() -> dict[str, Callable[[Mapping[str, Any]], FormatSettings]]:
    return {
        "gptq": GPTQSettings.from_config,
        "awq": AWQSettings.from_config,
        COMPRESSED_TENSORS: CompressedTensorsSettings.from_config,
        "fp8": FP8Settings.from_config,
        "bitsandbytes": BitsAndBytesSettings.from_config,
    }


def _method(raw: Mapping[str, Any], key: str) -> str:
    """The method's name, as old files spell it too."""
    given = raw.get("quant_method")
    if given is None and key == "compression_config":
        return COMPRESSED_TENSORS
    if given is None and (raw.get("load_in_4bit") or raw.get("load_in_8bit")):
        return "bitsandbytes"
    if given is None:
        return "unknown"
    return str(given).lower().replace("_", "-").removesuffix("-4bit").removesuffix("-8bit")
