"""`ondol rm MODEL`: give a model's disk space back.

Knows nothing about where models are kept. Invariant: nothing is removed that was not named and agreed to.
"""

import sys

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.config import load_settings
from ondol.errors import InvalidRequest
from ondol.model_manager.removal import plan_removal, remove
from ondol.model_manager.store import gigabytes


@click.command("rm")
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@settings_options("home")
def rm_command(model: str, yes: bool, **flags: object) -> None:
    """Remove MODEL from the local store or from the Hub's cache.

    The Hub's cache is shared with other programs of yours. Folders of your own are not touched. A daemon
    that has the model loaded keeps it until it is unloaded.

    \b
    Example:
      ondol rm smollm2-135m-instruct
      ondol rm Qwen/Qwen2-1.5B-Instruct --yes
    """
    home = load_settings(flags).home
    try:
        removal = plan_removal(model, home)
        freed = gigabytes(removal.freed_bytes)
        if not yes:
            click.echo(
                tr("{path} would be removed; this frees {size}.", path=removal.path, size=freed), err=True
            )
            require_consent()
        remove(model, home)
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    click.echo(tr("Removed {name}; {size} are free again.", name=removal.name, size=freed), err=True)


def require_consent() -> None:
    """Ask the person at the terminal; without one, `--yes` has to say it."""
    if not sys.stdin.isatty():
        raise click.UsageError(tr("There is no terminal to ask at: pass --yes to remove it."))
    if not click.confirm(tr("Remove it?"), err=True):
        raise click.Abort
