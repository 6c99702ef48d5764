"""Flags made from the settings, so that names, types, choices and helps cannot drift apart.

Knows nothing about what a setting does. Invariant: a flag passes its text on unchanged; checking it
is the settings' work, so that a bad value reads the same from a flag, a variable or a file.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import click

from ondol.config import Settings, flag_name, setting_text

CommandFunction = Callable[..., Any]


def settings_options(
    *keys: str, helps: Mapping[str, str] | None = None
) -> Callable[[CommandFunction], CommandFunction]:
    """Decorator: add `--config` and a flag for each of `keys` (without any: all but the model).

    `helps` says by key what a flag means here, where that is not what the setting means to a daemon.
    The command gets them as keyword arguments by field name, None or () where not given; hand the
    mapping to `load_settings`.
    """
    names = keys or tuple(key for key in Settings.model_fields if key != "model")

    def decorate(function: CommandFunction) -> CommandFunction:
        config_help = (
            "TOML file to read settings from (default: config.toml in Ondol's configuration folder)."
        )
        for key in reversed(names):
            function = setting_option(key, (helps or {}).get(key))(function)
        return click.option("--config", metavar="FILE", help=config_help)(function)

    return decorate


def setting_option(key: str, meaning: str | None = None) -> Callable[[CommandFunction], CommandFunction]:
    """The flag of one setting, as a click decorator; `meaning` goes before the setting's own description."""
    field = Settings.model_fields[key]
    annotation = field.annotation
    flag = flag_name(key)
    default = setting_text(key, field.get_default(call_default_factory=True))
    description = meaning or str(field.description)
    text = f"{description} [default: {default}]" if default != "-" else description
    if annotation is bool:
        return click.option(f"{flag}/{_negated(flag)}", key, default=None, help=text)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    metavar = f"[{'|'.join(choices)}]" if choices else "VALUE"
    return click.option(flag, key, metavar=metavar, multiple=get_origin(annotation) is tuple, help=text)


def flag_text(key: str, value: object) -> str:
    """One setting's flag as it stands on a command line: --port=9000, --deterministic, --no-deterministic."""
    flag = flag_name(key)
    if isinstance(value, bool):
        return flag if value else _negated(flag)
    return f"{flag}={value}"


def _negated(flag: str) -> str:
    return f"--no-{flag.removeprefix('--')}"
