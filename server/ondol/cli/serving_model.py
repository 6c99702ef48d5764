"""Finds who serves a model for one command: the running daemon, or else a temporary one.

Knows nothing about what the model is asked. Invariant: a running daemon is only asked for a model
that it offers; nothing is unloaded there for the sake of a command.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from ondol.cli.asked_model import AskedModel, Sampling
from ondol.cli.daemon_client import DaemonClient, daemon_options
from ondol.cli.flags import CommandFunction, flag_text
from ondol.cli.language import tr
from ondol.cli.temporary_daemon import TemporaryDaemon
from ondol.config import Settings, load_settings
from ondol.errors import DaemonUnreachable, ModelNotFound
from ondol.model_manager.resolve import find

# Each of them asks for a model loaded in a certain way, so it gets a daemon of its own.
LOAD_KEYS = (
    *("device", "dtype", "quantization", "max_model_len", "kv_cache_memory", "kv_cache_dtype", "threads"),
    *("cpu_offload_gb", "deterministic", "chat_template"),
)
PASSED_KEYS = ("config", "home", "api_key", "api_key_file")


def serving_options(function: CommandFunction) -> CommandFunction:
    """Decorator: the flags that `serving_model` takes."""
    return daemon_options("home", *LOAD_KEYS)(function)


@contextmanager
def serving_model(
    model: str | None, sampling: Sampling, *, url: str | None, flags: Mapping[str, Any]
) -> Iterator[AskedModel]:
    """The model, ready to be asked; without a name the daemon's first, or the settings' model.

    Raises ModelNotFound if the daemon at `url` does not offer it, DaemonUnreachable if none is there,
    and ends with a temporary daemon's exit code if that cannot serve.
    """
    settings = load_settings(flags)
    with ExitStack() as stack:
        client = stack.enter_context(DaemonClient.of(settings, url))
        name = None
        if url is not None:
            name = _offered(client, model, settings)
            if name is None:
                raise ModelNotFound(model or "", tuple(_ids(client)))
        elif not _says_how_to_load(flags) and client.is_running():
            name = _offered(client, model, settings)
            if name is None:
                note(tr("The daemon at {url} does not offer {model}.", url=client.url, model=model))
        if name is None:
            wanted = model or settings.model
            find(wanted, settings.home)  # a wrong name is told at once
            temporary = _temporary(wanted, flags, stack)
            client = stack.enter_context(DaemonClient.of(settings, temporary.url))
            name = _ids(client)[0]
        yield AskedModel(client, name, sampling)


def note(text: str) -> None:
    """One line for the person at the terminal, beside the data."""
    click.echo(text, err=True)


def _offered(client: DaemonClient, model: str | None, settings: Settings) -> str | None:
    """The id by which the daemon offers the model; None if it does not."""
    ids = _ids(client)
    if model is None or model in ids:
        return model or next(iter(ids), None)
    try:
        known = find(model, settings.home)
    except ModelNotFound:
        return None
    # A folder of the user's own may bear the name of another model.
    return known.name if known.source is not None and known.name in ids else None


def _ids(client: DaemonClient) -> list[str]:
    listed = client.get_json("/v1/models").get("data")
    if not isinstance(listed, list):
        raise DaemonUnreachable(f"What answers at {client.url} is no Ondol daemon.")
    return [str(card["id"]) for card in listed]


def _says_how_to_load(flags: Mapping[str, Any]) -> bool:
    return any(flags[key] is not None for key in LOAD_KEYS)


def _temporary(model: str, flags: Mapping[str, Any], stack: ExitStack) -> TemporaryDaemon:
    note(
        tr(
            "Loading {model} for this command only; `ondol serve {model}` keeps it loaded.",
            model=model,
        )
    )
    passed = [
        flag_text(key, value)
        for key in (*PASSED_KEYS, *LOAD_KEYS)
        for value in (flags[key] if isinstance(flags[key], tuple) else (flags[key],))
        if value is not None
    ]
    temporary = stack.enter_context(TemporaryDaemon(model, passed))
    temporary.wait_until_ready()
    return temporary
