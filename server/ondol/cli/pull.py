"""`ondol pull MODEL`: fetch a model now, so that serving it later needs no network.

Knows nothing about sources. Invariant: stdout carries the folder and nothing else.
"""

import click

from ondol.cli.flags import settings_options
from ondol.config import load_settings
from ondol.model_manager.resolve import pull


@click.command("pull")
@click.argument("model")
@settings_options("home")
def pull_command(model: str, **flags: object) -> None:
    """Fetch MODEL (a catalog name, or owner/name[@revision] on the Hub) and print its folder."""
    print(pull(model, load_settings(flags).home).path)
