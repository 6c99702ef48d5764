"""Removes models from this machine: from the local store or from the Hub's cache.

Knows nothing about who uses them. The invariant: a folder of the user's own is never touched, and a
name is gone before its files are.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ondol.errors import InvalidRequest, ModelNotFound
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.cached_repos import cached_repo, cached_repos
from ondol.model_manager.resolve import KnownModel, find
from ondol.model_manager.store import ModelStore


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal would do.

    Attributes:
        path: the folder that goes away.
        freed_bytes: disk space that comes back; files that other folders link to give none.
    """

    name: str
    path: Path
    freed_bytes: int


def plan_removal(model: str, home: Path) -> Removal:
    """What `remove` would do; changes nothing.

    Raises:
        ModelNotFound: no such model lies in the store or in the Hub's cache.
        InvalidRequest: it is a folder of the user's own, or one revision of several.
    """
    known = find(model, home)
    if known.is_registered and known.path is not None:
        return Removal(known.name, known.path, _freed_bytes(known.path))
    if known.path is not None:
        raise InvalidRequest(
            f"{known.path} is a folder of your own: Ondol removes only models of its store and of the "
            "Hub's cache. Remove the folder yourself.",
            param="model",
        )
    return _plan_cached(known, home)


def remove(model: str, home: Path) -> int:
    """Remove a model; the bytes that came back.

    Raises:
        As `plan_removal`.
    """
    removal = plan_removal(model, home)
    known = find(model, home)
    if known.is_registered:
        ModelStore(home).remove(known.name)
    else:
        locks = removal.path.parent / ".locks" / removal.path.name
        # Snapshots first: what is left of an interrupted removal is no complete model.
        for folder in (removal.path / "snapshots", removal.path, locks):
            if folder.is_dir():
                shutil.rmtree(folder)
    return removal.freed_bytes


def _plan_cached(known: KnownModel, home: Path) -> Removal:
    source = known.source
    cached = cached_repo(source.repo) if isinstance(source, HubSource) else None
    if cached is None or not isinstance(source, HubSource):
        here = (*ModelStore(home).names(), *(cached.repo for cached in cached_repos()))
        raise ModelNotFound(known.name, here, is_elsewhere=True)
    if source.revision != HubSource(repo=source.repo).revision and known.name == source.repo:
        raise InvalidRequest(
            f"{source.repo} is removed with all its revisions: leave @{source.revision} away.", param="model"
        )
    return Removal(known.name, cached.folder, cached.size_bytes())


def _freed_bytes(folder: Path) -> int:
    if folder.is_symlink():
        return 0
    stats = [file.lstat() for file in folder.rglob("*") if not file.is_dir()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
