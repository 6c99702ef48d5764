"""The models on this machine, as a daemon sees them.

Looks at the disk in threads and keeps what it saw. Knows nothing about loading. The invariant: nothing here
asks the network, and the event loop never waits for the disk.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.model_manager.catalog import HubSource
from ondol.model_manager.inventory import ModelListing, list_models
from ondol.model_manager.load_order import normalized
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import KnownModel, ResolvedModel, find, resolve

READY = "ready"
# A list that was made so short a time ago is as good as a new one.
FRESH_S = 0.5


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that could be loaded without a download.

    Attributes:
        created: when its folder last changed, in Unix seconds.
        source: a hint at the origin, ready for JSON.
    """

    name: str
    path: Path
    created: int
    source: dict[str, Any]


class Library:
    """One store and the Hub's cache; belongs to one event loop."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._models: dict[str, LocalModel] = {}
        self._elsewhere: dict[str, dict[str, Any]] = {}
        self._listed_s = -FRESH_S
        self._lock = asyncio.Lock()

    @property
    def models(self) -> dict[str, LocalModel]:
        """By name, as of the last `refresh`."""
        return self._models

    @property
    def elsewhere(self) -> dict[str, dict[str, Any]]:
        """By name, hints at the origins of models that are a download away, as of the last `refresh`."""
        return self._elsewhere

    async def refresh(self) -> None:
        """Look at the disk again, unless that has just been done."""
        asked_s = time.monotonic()
        async with self._lock:
            if self._listed_s < asked_s - FRESH_S:
                listed_s = time.monotonic()
                listings = await asyncio.to_thread(list_models, self._home)
                self._models = {listing.name: _local(listing) for listing in listings if _is_ready(listing)}
                self._elsewhere = {
                    listing.name: _origin(listing) for listing in listings if not _is_ready(listing)
                }
                self._listed_s = listed_s

    def forget(self) -> None:
        """What is on the disk has changed: the next `refresh` looks."""
        self._listed_s = -FRESH_S

    async def find(self, model: str) -> ResolvedModel | None:
        """The model's folder on this machine; None if it would have to be fetched.

        Raises:
            ModelNotFound: nothing goes by this name, anywhere.
            ModelRefused: the folder holds no complete model.
        """
        return await asyncio.to_thread(_find_local, normalized(model), self._home)


def _find_local(model: str, home: Path) -> ResolvedModel | None:
    known = find(model, home)
    return resolve(model, home) if _is_here(known) else None


def _is_here(known: KnownModel) -> bool:
    if known.path is not None:
        return True
    if not isinstance(known.source, HubSource):
        return False
    from ondol.model_manager.hub.cache import Hub  # noqa: PLC0415 - only Hub models wait for the Hub's library

    return Hub(Progress()).cached(known.source) is not None


def _is_ready(listing: ModelListing) -> bool:
    return listing.status == READY and listing.path is not None


def _local(listing: ModelListing) -> LocalModel:
    assert listing.path is not None, "it is ready"
    path = Path(listing.path)
    return LocalModel(listing.name, path, int(path.stat().st_mtime), _origin(listing))


def _origin(listing: ModelListing) -> dict[str, Any]:
    return {"kind": listing.source.partition(" ")[0]}
