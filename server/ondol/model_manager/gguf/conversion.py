"""Writes a GGUF file as a model folder in Hugging Face layout.

Knows nothing about where the file came from or where the folder lies. The invariant: no weight is
rounded: half-precision ones are kept, quantized ones become float32.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.config import generation_config, model_config
from ondol.model_manager.gguf.safetensors_file import write_tensors
from ondol.model_manager.gguf.tokenizer import write_tokenizer
from ondol.model_manager.progress import Progress

# Raised when the same GGUF would give other files than before.
CONVERTER_VERSION = 3


def converted_bytes(checkpoint: GGUFCheckpoint) -> int:
    """Size of the weights that `write_model` will write; refuses what it would."""
    return sum(tensor.num_bytes for tensor in checkpoint.tensors())


def write_model(
    checkpoint: GGUFCheckpoint, folder: Path, generation: Mapping[str, float], progress: Progress
) -> None:
    """Write configs, tokenizer and model.safetensors.

    `generation` goes into generation_config.json beside what the GGUF says.

    Raises:
        ModelRefused: something in the file cannot be carried over exactly.
    """
    write_json(folder / "config.json", model_config(checkpoint))
    write_json(folder / "generation_config.json", {**generation_config(checkpoint), **generation})
    write_tokenizer(checkpoint, folder)
    tensors = list(checkpoint.tensors())
    with progress.bar("Unpacking the weights", sum(tensor.num_bytes for tensor in tensors)) as bar:
        write_tensors(folder / "model.safetensors", tensors, on_written=bar.update)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Indented UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
