"""Writes a checkpoint's safetensors files tensor by tensor.

The library's own `save_file` wants all tensors of a file in memory; this holds one. Names and shapes are
planned first, so that every place is known before the first tensor comes. Knows nothing about models.
Invariant: after `close` every planned tensor is in its place, on the disk.
Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON, data).
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

SHARD_BYTES = 2 * 10**9
ALIGNMENT_BYTES = 8
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

HEADER_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}
DTYPES_BY_HEADER_NAME = {name: dtype for dtype, name in HEADER_NAMES.items()}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor that will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class CheckpointWriter:
    """One or several safetensors files in a folder, and their index if there are several.

    Use as a context manager; an exception inside leaves incomplete files behind.

    Args:
        folder: an existing folder.
        groups: what will be written; the tensors of a group stay in one file.
        shard_bytes: a file takes no further group beyond this size.
    """

    def __init__(
        self, folder: Path, groups: Iterable[Sequence[PlannedTensor]], shard_bytes: int = SHARD_BYTES
    ) -> None:
        self._folder = folder
        shards = split_into_shards(groups, shard_bytes)
        named = zip(_names(len(shards)), shards, strict=True)
        self._files = [_ShardFile(folder / name, shard) for name, shard in named]
        self._file_by_name = {planned.name: file for file in self._files for planned in file.tensors}
        self._missing = set(self._file_by_name)
        self.size_bytes = sum(file.size_bytes for file in self._files)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        if error is None:
            assert not self._missing, f"planned and not written: {sorted(self._missing)[:3]}"
            if len(self._files) > 1:
                self._write_index()

    def write(self, name: str, tensor: Tensor) -> None:
        """Put a CPU tensor into its planned place."""
        self._file_by_name[name].write(name, tensor)
        self._missing.discard(name)

    def _write_index(self) -> None:
        tensors = [planned for file in self._files for planned in file.tensors]
        index = {
            "metadata": {"total_size": sum(planned.num_bytes for planned in tensors)},
            "weight_map": {name: file.path.name for name, file in sorted(self._file_by_name.items())},
        }
        text = json.dumps(index, indent=2) + "\n"
        (self._folder / INDEX_FILE).write_text(text, encoding="utf-8")


class _ShardFile:
    """One safetensors file whose header is written first; tensors follow in any order."""

    def __init__(self, path: Path, tensors: Sequence[PlannedTensor]) -> None:
        self.path = path
        # Widest dtype first: then every tensor is aligned, and the format allows no holes between them.
        self.tensors = sorted(tensors, key=lambda planned: -planned.dtype.itemsize)
        head, self._start_by_name = _layout(self.tensors)
        self.size_bytes = len(head) + sum(planned.num_bytes for planned in self.tensors)
        self._planned = {planned.name: planned for planned in self.tensors}
        self._file = path.open("wb")
        self._file.write(head)
        self._data_start = len(head)

    def write(self, name: str, tensor: Tensor) -> None:
        planned = self._planned[name]
        assert (tensor.dtype, tuple(tensor.shape)) == (planned.dtype, planned.shape), name
        self._file.seek(self._data_start + self._start_by_name[name])
        self._file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def split_into_shards(
    groups: Iterable[Sequence[PlannedTensor]], shard_bytes: int
) -> list[list[PlannedTensor]]:
    """Groups in their order, packed into shards of at most `shard_bytes` where a single group fits."""
    shards: list[list[PlannedTensor]] = [[]]
    filled_bytes = 0
    for group in groups:
        group_bytes = sum(planned.num_bytes for planned in group)
        if shards[-1] and filled_bytes + group_bytes > shard_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].extend(group)
        filled_bytes += group_bytes
    return shards


def _names(num_shards: int) -> list[str]:
    if num_shards == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{num_shards:05d}.safetensors" for number in range(1, num_shards + 1)]


def _layout(tensors: Sequence[PlannedTensor]) -> tuple[bytes, dict[str, int]]:
    """The file's head, padded so that the data is aligned, and where each tensor's data begins in it."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    start = 0
    for planned in tensors:
        starts[planned.name] = start
        end = start + planned.num_bytes
        header[planned.name] = {
            "dtype": HEADER_NAMES[planned.dtype],
            "shape": list(planned.shape),
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    padded = encoded + b" " * (-len(encoded) % ALIGNMENT_BYTES)
    return len(padded).to_bytes(8, "little") + padded, starts
