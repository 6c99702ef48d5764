"""Which repositories lie in the Hub library's cache, and how much of the disk they take.

Reads folders only, so that listing does not wait for the library or for a large cache. Knows nothing
about which snapshot is complete. The invariant: nothing is changed.
Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from ondol.model_manager.catalog import parse_hub_id
from ondol.model_manager.hub.files import WEIGHTS_SUFFIX

PREFIX = "models--"
SEPARATOR = "--"
# Blobs of a download that was interrupted, whoever began it.
INCOMPLETE_SUFFIX = ".incomplete"


@dataclass(frozen=True, slots=True)
class CachedRepo:
    """One model repository in the cache, with weights that Ondol reads or a download under way."""

    repo: str
    folder: Path

    def size_bytes(self) -> int:
        """What its files take on the disk, each counted once."""
        return sum(entry.stat().st_size for entry in _files(self.folder / "blobs"))


def cached_repos(cache: Path | None = None) -> Iterator[CachedRepo]:
    """Every such repository, by name; `cache` None is the library's own folder."""
    root = cache or Path(constants.HF_HUB_CACHE)
    if not root.is_dir():
        return
    for name in sorted(entry.name for entry in os.scandir(root) if entry.name.startswith(PREFIX)):
        repo = name.removeprefix(PREFIX).replace(SEPARATOR, "/")
        if parse_hub_id(repo) is not None and _has_weights(root / name):
            yield CachedRepo(repo, root / name)


def cached_repo(repo: str, cache: Path | None = None) -> CachedRepo | None:
    """The repository of this id, whatever the cache has of it; None if that is nothing."""
    root = cache or Path(constants.HF_HUB_CACHE)
    folder = root / f"{PREFIX}{repo.replace('/', SEPARATOR)}"
    return CachedRepo(repo, folder) if folder.is_dir() else None


def _has_weights(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    commits = list(os.scandir(snapshots)) if snapshots.is_dir() else []
    if any(entry.name.endswith(WEIGHTS_SUFFIX) for commit in commits for entry in _entries(Path(commit))):
        return True
    return any(entry.name.endswith(INCOMPLETE_SUFFIX) for entry in _files(folder / "blobs"))


def _files(folder: Path) -> list["os.DirEntry[str]"]:
    return [entry for entry in _entries(folder) if entry.is_file()]


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    return list(os.scandir(folder)) if folder.is_dir() else []
