"""Writes weights piece by piece into a safetensors file.

Knows nothing about models. The library's own `save_file` wants every tensor in memory at once; this
holds one piece of one. The invariant: the file is complete and on the disk when `write_tensors`
returns. Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON, data).
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ondol.model_manager.gguf.checkpoint import CheckpointTensor

HEADER_ALIGNMENT = 8


def write_tensors(
    path: Path,
    tensors: Sequence[CheckpointTensor],
    on_written: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Write all tensors in order; `on_written` hears the bytes of each piece as it is done."""
    with path.open("wb") as file:
        file.write(header_bytes(tensors))
        for tensor in tensors:
            for chunk in tensor.chunks():
                data = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<")).data
                file.write(data)
                on_written(data.nbytes)
        file.flush()
        os.fsync(file.fileno())


def header_bytes(tensors: Sequence[CheckpointTensor]) -> bytes:
    """The file's head: length prefix and JSON, padded with spaces so that the data is aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.num_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    padded = encoded + b" " * (-len(encoded) % HEADER_ALIGNMENT)
    return len(padded).to_bytes(8, "little") + padded
