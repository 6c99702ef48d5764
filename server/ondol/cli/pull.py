"""`ondol pull MODEL`: fetch a model now, so that serving it later needs no network.

Knows nothing about sources. Invariant: stdout carries the folder and nothing else.
"""

import click

from ondol.cli.flags import settings_options
from ondol.cli.signals import terminated_like_interrupted
from ondol.cli.terminal_progress import TerminalProgress
from ondol.config import load_settings
from ondol.model_manager.resolve import pull


@click.command("pull")
@click.argument("model")
@settings_options("home")
def pull_command(model: str, **flags: object) -> None:
    """Fetch MODEL (a catalog name, or owner/name[@revision] on the Hub) and print its folder.

    A pull that was interrupted goes on where it stopped.

    \b
    Example:
      ondol pull qwen2-1.5b-instruct
      ondol pull Qwen/Qwen2-1.5B-Instruct@main
    """
    home = load_settings(flags).home
    with terminated_like_interrupted():
        print(pull(model, home, TerminalProgress()).path)
