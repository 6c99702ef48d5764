"""A folder of safetensors files, read tensor by tensor.

Never opens pickle. Checks names, files and headers before any weight is read. Knows nothing about
models.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ondol.errors import ModelRefused

PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")


class Checkpoint:
    """Names, shapes and contents of a model folder's tensors.

    Args:
        folder: model folder with model.safetensors, or shards and model.safetensors.index.json.

    Attributes:
        names: of all tensors.
        size_bytes: of all files.

    Raises:
        ModelRefused: no safetensors, a bad index, or a truncated or corrupt file (named).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handles = {file: _open(file) for file in _find_files(folder)}
        self._file_by_name = {name: file for file, handle in self._handles.items() for name in handle.keys()}  # noqa: SIM118 - not a dict
        self.names = frozenset(self._file_by_name)
        self.size_bytes = sum(file.stat().st_size for file in self._handles)

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._file_by_name[name]

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from the header."""
        return tuple(self._handle(name).get_slice(name).get_shape())

    def dtype_of(self, name: str) -> str:
        """A tensor's dtype as the header spells it: F32, BF16, I32, U8, ..."""
        return str(self._handle(name).get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """A tensor on the CPU, backed by the mapped file until it is copied."""
        try:
            tensor: Tensor = self._handle(name).get_tensor(name)
        except SafetensorError as error:
            raise ModelRefused(f"{name} in {self._file_by_name[name]} cannot be read: {error}") from error
        return tensor

    def require(self, names: Iterable[str]) -> None:
        """Raise ModelRefused if one of these tensors is missing."""
        for name in names:
            if name not in self._file_by_name:
                raise ModelRefused(f"{self.folder} lacks the tensor {name}")

    def refusal(self, name: str, reason: str) -> ModelRefused:
        """The error for a tensor that is there and does not fit: names it and its file."""
        return ModelRefused(f"{name} in {self._file_by_name[name]} {reason}")

    def _handle(self, name: str) -> Any:
        return self._handles[self._file_by_name[name]]


def _find_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return _files_of_index(index)
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelRefused(
            f"{folder} holds its weights as pickle ({pickles[0]}), which can run code when loaded; "
            "Ondol reads safetensors only. Take a safetensors revision of this model."
        )
    raise ModelRefused(f"{folder} has no model.safetensors")


def _files_of_index(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelRefused(f"{index} is not a valid safetensors index: {error}") from error
    files = []
    for name in sorted(names):
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelRefused(f"{index} names a file outside the model's folder: {name}")
        if not (index.parent / name).is_file():
            raise ModelRefused(f"{index.parent / name} is missing, though {index.name} names it")
        files.append(index.parent / name)
    return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{file} is corrupt or truncated: {error}") from error
