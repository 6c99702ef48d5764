"""`ondol key`: make, list and revoke the API keys of this machine's daemon.

Knows nothing about how keys are kept. Invariant: stdout carries a new key alone, once, and never an
old one.
"""

import json
from datetime import datetime

import click
import msgspec

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.keys.key_store import ApiKey, KeyLimits, KeyStore

Limit = click.IntRange(min=1)


@click.group("key")
def key_command() -> None:
    """Make, list and revoke API keys; a running daemon sees every change at once.

    \b
    Example:
      ondol key create open-webui --requests-per-minute 60
    """


@key_command.command("create")
@click.argument("name")
@click.option("--requests-per-minute", type=Limit, help="Requests that the key allows in a minute.")
@click.option("--tokens-per-minute", type=Limit, help="Tokens, of prompts and answers, in a minute.")
@click.option("--max-concurrency", type=Limit, help="Requests that may be open at the same time.")
@click.option("--min-priority", type=int, help="Lowest, that is most urgent, `priority` of its requests.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home")
def create_command(
    name: str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    max_concurrency: int | None,
    min_priority: int | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Make a key called NAME and print it; it cannot be shown again.

    \b
    Example:
      ondol key create laptop --max-concurrency 4
    """
    limits = KeyLimits(requests_per_minute, tokens_per_minute, max_concurrency, min_priority)
    key = KeyStore(load_settings(flags).home).create(name, limits)
    if as_json:
        print(json.dumps({"name": name, "key": key, "limits": msgspec.to_builtins(limits)}))
        return
    print(key)
    click.echo(tr("Keep it now: only its digest is stored. Clients send it as a bearer token."), err=True)


@key_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@settings_options("home")
def list_command(as_json: bool, **flags: object) -> None:
    """List the keys that were made here, revoked ones too.

    \b
    Example:
      ondol key list
    """
    keys = KeyStore(load_settings(flags).home).entries()
    if as_json:
        shown = [{**msgspec.to_builtins(key), "digest": key.digest[:8]} for key in keys]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    headers = [
        tr("NAME"),
        tr("CREATED"),
        tr("REQUESTS/MIN"),
        tr("TOKENS/MIN"),
        tr("CONCURRENT"),
        tr("MIN PRIORITY"),
        tr("STATUS"),
    ]
    print(table(headers, [_row(key) for key in keys], right=(2, 3, 4, 5)))


@key_command.command("revoke")
@click.argument("name")
@settings_options("home")
def revoke_command(name: str, **flags: object) -> None:
    """Revoke the key called NAME; from its next request on it opens nothing.

    \b
    Example:
      ondol key revoke laptop
    """
    store = KeyStore(load_settings(flags).home)
    store.revoke(name)
    click.echo(tr("Revoked {name}.", name=name), err=True)
    if all(key.revoked is not None for key in store.entries()):
        click.echo(
            tr("No valid key is left; a daemon still asks for one. Make a new one with `ondol key create`."),
            err=True,
        )


def _row(key: ApiKey) -> list[str]:
    limits = key.limits
    numbers = (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.max_concurrency,
        limits.min_priority,
    )
    return [
        key.name,
        _day(key.created),
        *("-" if number is None else str(number) for number in numbers),
        tr("valid") if key.revoked is None else tr("revoked {day}", day=_day(key.revoked)),
    ]


def _day(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s).astimezone().strftime("%Y-%m-%d")
