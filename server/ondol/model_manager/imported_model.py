"""Registers a model that is on this machine already: a folder in Hugging Face layout, or a GGUF file.

For closed networks: nothing is asked of any network. The invariant: what gets registered is complete
and of a kind that can be served, as far as configuration, headers and tokenizer tell; the original is
only read.
"""

import errno
import os
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from ondol import __version__
from ondol.errors import ConfigError
from ondol.model_manager.catalog import is_name
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.conversion import CONVERTER_VERSION, converted_bytes, write_json, write_model
from ondol.model_manager.hub.files import (
    SIDE_FILES,
    WEIGHTS_INDEX,
    WEIGHTS_SUFFIX,
    check_folder,
    indexed_shards,
)
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import RECORD_FILE, ModelStore, read_record
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.loading import draw_model
from ondol.modeling.weight_loader import check_names
from ondol.text.tokenizer import TextTokenizer

# How weights get into the store: "auto" links where the file system can, and copies elsewhere.
Placement = Literal["auto", "link", "copy"]

GGUF_SUFFIX = ".gguf"
COPY_CHUNK_BYTES = 1 << 23
# Room for configurations, tokenizer and record beside the weights of a GGUF file.
SIDE_BYTES = 64_000_000
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def import_model(
    source: Path, store: ModelStore, name: str | None, placement: Placement, progress: Progress
) -> Path:
    """Register a folder or a GGUF file; the registered folder.

    Args:
        name: in the store; None takes the folder's or the file's own.
        placement: of a folder's weights. A GGUF file is always converted.

    Raises:
        ConfigError: there is no such folder or file, the name is taken or no name, or the weights
            cannot be linked.
        ModelRefused: incomplete, damaged, or of a kind that would run wrongly.
        DoesNotFit: the disk has no room. Nothing was registered in any of these cases.
    """
    source = source.expanduser()
    if not source.is_dir() and not (source.is_file() and source.suffix.lower() == GGUF_SUFFIX):
        raise ConfigError(f"{source} is neither a model folder nor a {GGUF_SUFFIX} file.")
    source = source.resolve()
    name = _checked_name(name, source)
    waiting = f"Another process is registering {name}; waiting for it."
    with store.lock(name, lambda: progress.note(waiting)):
        if store.find(name):
            raise ConfigError(
                f"A model named {name} is registered already: choose another --name, "
                f"or run `ondol rm {name}` first."
            )
        if source.is_dir():
            _import_folder(source, name, store, placement, progress)
        else:
            _import_gguf(source, name, store, progress)
    folder = store.folder(name)
    progress.note(f"{name} is registered in {folder}.")
    return folder


def check_model(folder: Path) -> None:
    """Check a complete folder without reading its weights: configuration, headers, names, tokenizer.

    Raises:
        ModelRefused: names what is wrong.
    """
    blueprint = draw_model(folder, torch.device("cpu"), "auto")
    needed = frozenset(name for slot in blueprint.model.slots() for name in slot.names)
    check_names(needed, Checkpoint(folder), blueprint.ignored)
    TextTokenizer.load(folder)


def _checked_name(name: str | None, source: Path) -> str:
    own = source.name if source.is_dir() else source.stem
    text = unicodedata.normalize("NFC", own if name is None else name)
    if not is_name(text):
        raise ConfigError(
            f"'{text}' cannot be a model's name: letters, digits, '-', '_' and single dots can. Pass --name."
        )
    return text


def _import_folder(
    source: Path, name: str, store: ModelStore, placement: Placement, progress: Progress
) -> None:
    check_folder(source)
    check_model(source)
    weights = _weights_files(source)
    sides = [file for file in sorted(source.iterdir()) if SIDE_FILES.fullmatch(file.name) and file.is_file()]
    can_link = placement != "copy" and store.shares_disk_with(source)
    copied = sides if can_link else [*sides, *weights]
    store.require_space(sum(file.stat().st_size for file in copied))
    with store.staging(name) as staged:
        for file in sides:
            shutil.copyfile(file, staged / file.name)
        _place(weights, staged, placement, progress)
        record = _record(name, "import") | {"path": str(source)}
        if earlier := read_record(source):
            record["source"] = earlier
        write_json(staged / RECORD_FILE, record)


def _import_gguf(source: Path, name: str, store: ModelStore, progress: Progress) -> None:
    checkpoint = GGUFCheckpoint(source)
    store.require_space(converted_bytes(checkpoint) + SIDE_BYTES)
    with store.staging(name) as staged:
        write_model(checkpoint, staged, {}, progress)
        check_model(staged)
        record = _record(name, "gguf") | {
            "file": str(source),
            "description": checkpoint.field("general.name", ""),
            "licence": checkpoint.field("general.license", ""),
            "converter_version": CONVERTER_VERSION,
        }
        write_json(staged / RECORD_FILE, record)


def _weights_files(folder: Path) -> list[Path]:
    index = folder / WEIGHTS_INDEX
    names = indexed_shards(index) if index.is_file() else [f"model{WEIGHTS_SUFFIX}"]
    return [folder / name for name in names]


def _place(files: Sequence[Path], folder: Path, placement: Placement, progress: Progress) -> None:
    """Link or copy the weights; a link to a file of the Hub's cache goes to its contents."""
    total_bytes = sum(file.stat().st_size for file in files)
    with progress.bar("Registering the weights", total_bytes) as bar:
        for file in files:
            target = folder / file.name
            if placement == "copy" or not _linked(file.resolve(), target, placement):
                _copy(file, target, bar.update)
            else:
                bar.update(file.stat().st_size)


def _linked(file: Path, target: Path, placement: Placement) -> bool:
    """Whether a hard link could be made; raises ConfigError where it had to be."""
    try:
        os.link(file, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        if placement == "link":
            raise ConfigError(f"--link: {file} cannot be linked to from {target.parent}: copy it.") from error
        return False
    return True


def _copy(file: Path, target: Path, on_copied: Callable[[int], object]) -> None:
    with file.open("rb") as original, target.open("wb") as copy:
        while chunk := original.read(COPY_CHUNK_BYTES):
            copy.write(chunk)
            on_copied(len(chunk))


def _record(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ondol_version": __version__,
    }
