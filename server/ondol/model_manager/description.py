"""One model in full: what `ondol show` tells.

Knows nothing about printing. The invariant: describing changes nothing and asks no network; what is
not known before a pull is None.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from ondol.model_manager.catalog import HubSource, Source, load_catalog
from ondol.model_manager.generation_defaults import GenerationDefaults
from ondol.model_manager.hub.cached_repos import cached_repo
from ondol.model_manager.inventory import (
    ModelListing,
    Status,
    catalog_model,
    folder_files,
    registered_model,
)
from ondol.model_manager.published_config import PublishedConfig
from ondol.model_manager.resolve import KnownModel, find
from ondol.model_manager.store import read_record


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is known about one model.

    Attributes:
        source: as in `ModelListing`.
        page: where the Hub shows the model, and takes requests for access.
        commit: of the snapshot in the Hub's cache.
        files: name and size in bytes, of a model that is here.
        config: what its own files say; None for a model that is not here.
        generation: the sampling parameters that its authors recommend.
        recommended: what the catalog recommends for serving it.
        record: what was written down when it was registered.
    """

    name: str
    status: Status
    source: str
    description: str
    licence: str
    is_gated: bool | None
    aliases: tuple[str, ...]
    page: str | None
    revision: str | None
    commit: str | None
    path: str | None
    size_bytes: int | None
    files: tuple[tuple[str, int], ...]
    config: PublishedConfig | None
    generation: dict[str, Any]
    recommended: dict[str, Any]
    record: dict[str, Any]


def describe(model: str, home: Path) -> ModelDescription:
    """The model of a name, a folder or a Hub id, here or not.

    Raises:
        ModelNotFound: nothing goes by this name.
        ModelRefused: its generation_config.json is damaged.
    """
    known = find(model, home)
    source = _catalog_entry(known)
    hub = known.source if isinstance(known.source, HubSource) else None
    listing = _listing(known, source)
    folder = Path(listing.path) if listing.path else None
    is_cached = folder is not None and known.path is None
    return ModelDescription(
        name=known.name,
        status=listing.status,
        source=listing.source,
        description=listing.description,
        licence=listing.licence,
        is_gated=source.is_gated if source else None,
        aliases=source.aliases if source else (),
        page=f"{constants.ENDPOINT}/{hub.repo}" if hub else None,
        revision=hub.revision if hub and not known.path else None,
        commit=folder.name if folder and is_cached else None,
        path=listing.path,
        size_bytes=sum(size for _, size in folder_files(folder)) if folder else listing.size_bytes,
        files=tuple(folder_files(folder)) if folder else (),
        config=PublishedConfig.read(folder) if folder else None,
        generation=_given(asdict(GenerationDefaults.load(folder))) if folder else {},
        recommended=_recommended(source),
        record=read_record(folder) if folder else {},
    )


def _catalog_entry(known: KnownModel) -> Source | None:
    """What the catalog says, also of a repository that was named by its Hub id."""
    source = known.source
    if not isinstance(source, HubSource) or known.name != source.repo:
        return source
    entries = (entry for entry in load_catalog().values() if isinstance(entry, HubSource))
    return next((entry for entry in entries if entry.repo == source.repo), None)


def _listing(known: KnownModel, entry: Source | None) -> ModelListing:
    if known.path is not None:
        return registered_model(known.path, known.name, entry)
    source = known.source
    assert source is not None, "a model without a folder has a source"
    if not isinstance(source, HubSource):
        return catalog_model(known.name, source, None)
    said = entry or source
    listing = catalog_model(known.name, source, cached_repo(source.repo))
    return replace(listing, description=said.description, licence=said.licence)


def _recommended(source: Source | None) -> dict[str, Any]:
    if source is None:
        return {}
    return _given(
        {
            "quantization": source.quantization,
            "max_model_len": source.max_model_len,
            "kv_cache_bytes": source.kv_cache_bytes,
            "tokenizer": source.tokenizer,
            "chat_template": source.chat_template,
        }
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
