"""Where settings come from: flags, `ONDOL_*` variables, a TOML file, defaults, in this precedence.

Knows nothing about what a setting means. Invariant: a value is never dropped or guessed; an unknown
key or a bad value in any source raises `ConfigError` naming that source.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, InitSettingsSource, TomlConfigSettingsSource

from ondol.config.settings import ENV_PREFIX, Settings
from ondol.errors import ConfigError

CONFIG_ENV = "ONDOL_CONFIG"

OriginKind = Literal["flag", "env", "file", "default"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from; `label` is fit for an error message."""

    kind: OriginKind
    label: str


def load_settings(flags: Mapping[str, object]) -> Settings:
    """Settings from `flags` (field name -> value; None or () is unset), environment, file and defaults.

    `flags` may also hold "config", the TOML file's path. Raises ConfigError.
    """
    return resolve_settings(flags)[0]


def resolve_settings(flags: Mapping[str, object]) -> tuple[Settings, dict[str, Origin]]:
    """As `load_settings`, with the origin of every setting by field name."""
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    config_path = _config_path(given.pop("config", None))
    values: dict[str, object] = {}
    origins = {name: Origin("default", "default") for name in Settings.model_fields}
    layers: tuple[tuple[OriginKind, dict[str, object]], ...] = (
        ("file", _file_values(config_path)),
        ("env", _env_values()),
        ("flag", _flag_values(given)),
    )
    for kind, layer in layers:
        for key, value in layer.items():
            values[key] = value
            origins[key] = Origin(kind, _label(kind, key, config_path))
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        raise ConfigError(_describe(error, origins)) from error


def flag_name(key: str) -> str:
    """The command line's spelling of a setting: `max_model_len` is `--max-model-len`."""
    return "--" + key.replace("_", "-")


def _label(kind: OriginKind, key: str, config_path: Path | None) -> str:
    if kind == "flag":
        return "argument MODEL" if key == "model" else f"flag {flag_name(key)}"
    if kind == "env":
        return f"env {_env_name(key)}"
    return f"file {config_path} key {key}"


def _config_path(flag: object) -> Path | None:
    """The TOML file to read: flag, else ONDOL_CONFIG, else the user's own where it exists."""
    named = (
        (str(flag), "flag --config")
        if flag is not None
        else (os.environ.get(CONFIG_ENV), f"env {CONFIG_ENV}")
    )
    if named[0]:
        path = Path(named[0]).expanduser()
        if not path.is_file():
            raise ConfigError(f"{named[1]}: there is no file {path}")
        return path
    own = platformdirs.user_config_path("ondol") / "config.toml"
    return own if own.is_file() else None


def _flag_values(given: Mapping[str, object]) -> dict[str, object]:
    for key in given:
        if key not in Settings.model_fields:
            raise _unknown(f"flag {flag_name(key)}", key, flag_name)
    return dict(InitSettingsSource(Settings, dict(given))())


def _env_values() -> dict[str, object]:
    for name in os.environ:
        key = name.upper().removeprefix(ENV_PREFIX).lower()
        if name.upper().startswith(ENV_PREFIX) and key not in (*Settings.model_fields, "config"):
            raise _unknown(f"env {name}", key, _env_name)
    return dict(EnvSettingsSource(Settings)())


def _env_name(key: str) -> str:
    return ENV_PREFIX + key.upper()


def _file_values(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        values: dict[str, object] = dict(TomlConfigSettingsSource(Settings, path)())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"file {path}: cannot be read as TOML: {error}") from error
    for key, value in values.items():
        label = _label("file", key, path)
        if key not in Settings.model_fields:
            raise _unknown(label, key, str)
        # pydantic would read `port = true` as port 1.
        if isinstance(value, bool) and Settings.model_fields[key].annotation is not bool:
            raise ConfigError(f"{label}: {str(value).lower()} is not a valid value")
    return values


def _unknown(label: str, key: str, spell: Callable[[str], str]) -> ConfigError:
    """The error for a key that no setting has; `spell` writes a key as this source would."""
    nearest = difflib.get_close_matches(key, list(Settings.model_fields), n=1, cutoff=0.5)
    hint = f"did you mean {spell(nearest[0])}?" if nearest else "`ondol config show` lists all settings"
    return ConfigError(f"{label}: unknown setting; {hint}")


def _describe(error: ValidationError, origins: Mapping[str, Origin]) -> str:
    """One line for the first bad value; the value of a secret is never shown."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    shown = "" if key == "api_key" else f"{first['input']!r} is not a valid value: "
    reason = first["msg"].removeprefix("Value error, ")
    return f"{origins[key].label}: {shown}{reason[:1].lower()}{reason[1:]}"
