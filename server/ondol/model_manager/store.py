"""The local store: <home>/models/<name>/, one folder in Hugging Face layout per model.

Knows nothing about where models come from. The invariant: a folder under models/ is complete. It is
made under tmp/, brought to the disk and renamed; whatever dies on the way leaves only a leftover
under tmp/, which the next pull removes.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ondol.errors import DoesNotFit, ModelRefused
from ondol.model_manager.catalog import check_name, is_name
from ondol.model_manager.disk_errors import FULL

RECORD_FILE = "ondol.json"


class ModelStore:
    """The models registered under one home folder."""

    def __init__(self, home: Path) -> None:
        self._models = home / "models"
        self._staging = home / "tmp"
        self._locks = home / "locks"

    def find(self, name: str) -> Path | None:
        """The folder of a registered model.

        Raises:
            ModelNotFound: the name is not a safe folder name.
        """
        folder = self.folder(name)
        return folder if (folder / "config.json").is_file() else None

    def folder(self, name: str) -> Path:
        """Where a model of this name lies, or would."""
        return self._models / check_name(name)

    def names(self) -> tuple[str, ...]:
        """Every registered model, sorted."""
        if not self._models.is_dir():
            return ()
        return tuple(
            sorted(
                entry.name
                for entry in self._models.iterdir()
                if is_name(entry.name) and self.find(entry.name)
            )
        )

    def require_space(self, required_bytes: int) -> None:
        """Raise DoesNotFit if the store's disk has less than this left."""
        self._staging.mkdir(parents=True, exist_ok=True)
        check_space(self._staging, required_bytes)

    def shares_disk_with(self, folder: Path) -> bool:
        """Whether files of this folder lie on the store's disk, so that the store can link to them."""
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging.stat().st_dev == folder.stat().st_dev

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the right to register `name`; `on_wait` is called if another process holds it."""
        lock = self._lock_file(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """An empty folder that becomes models/<name> when the block ends without an error.

        Call it with the name's lock held. The folder is removed if the block raises.

        Raises:
            DoesNotFit: the disk ran full inside the block.
            ModelRefused: something that is no model lies where the folder should go.
        """
        if self.folder(name).exists():
            raise ModelRefused(
                f"{self.folder(name)} is in the way and is no complete model. Remove it first."
            )
        self._remove_leftovers(name)
        self._models.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{check_name(name)}.", dir=self._staging))
        try:
            with disk_full_as_error(folder):
                yield folder
                sync_folder(folder)
                folder.chmod(0o755)  # mkdtemp's 0700 would hide the model from a daemon of another user
                folder.rename(self.folder(name))
                sync_entry(self._models)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Take a registered model away; its name is gone before its files are."""
        with self.lock(name, lambda: None):
            if self.folder(name).is_symlink():  # somebody's own folder, linked by hand
                self.folder(name).unlink()
                return
            self._remove_leftovers(name)
            folder = Path(tempfile.mkdtemp(prefix=f"{check_name(name)}.", dir=self._staging))
            self.folder(name).rename(folder)  # replaces the empty folder
            shutil.rmtree(folder)

    def _lock_file(self, name: str) -> FileLock:
        self._locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self._locks / f"{check_name(name)}.lock")

    def _remove_leftovers(self, name: str) -> None:
        """Remove what dead pulls left; a pull that is alive holds the lock of its name."""
        self._staging.mkdir(parents=True, exist_ok=True)
        for leftover in self._staging.iterdir():
            owner = leftover.name.rpartition(".")[0]
            if owner == name:
                shutil.rmtree(leftover, ignore_errors=True)
            elif is_name(owner):
                try:
                    with self._lock_file(owner).acquire(timeout=0):
                        shutil.rmtree(leftover, ignore_errors=True)
                except Timeout:
                    continue


def read_record(folder: Path) -> dict[str, Any]:
    """What a pull wrote down about a model's origin; empty for a folder from elsewhere."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def check_space(folder: Path, required_bytes: int) -> None:
    """Raise DoesNotFit if the folder's disk has less than this left."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < required_bytes:
        raise DoesNotFit(
            f"The model needs {gigabytes(required_bytes)} of disk, but {folder} has only "
            f"{gigabytes(free_bytes)} left. Free some space or choose another folder."
        )


def gigabytes(num_bytes: int) -> str:
    """For people: 1 GB is 10^9 bytes, as disks are sold."""
    return f"{num_bytes / 1e9:.2f} GB"


@contextmanager
def disk_full_as_error(folder: Path) -> Iterator[None]:
    """Turn a full disk into DoesNotFit."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DoesNotFit(
            f"The disk of {folder.parent} ran full; nothing was registered. Free some space."
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's files and their names to the disk."""
    for entry in folder.iterdir():
        sync_entry(entry)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    """fsync of a file or of a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
