"""`ondol stop`: have the running daemon give back a model's memory.

Knows nothing about how. Invariant: open answers are never cut.
"""

import click

from ondol.cli.daemon_client import DaemonClient, daemon_options
from ondol.cli.language import tr
from ondol.config import load_settings


@click.command("stop")
@click.argument("model")
@click.option("--wait", is_flag=True, help="Wait for the answers that are being written.")
@daemon_options()
def stop_command(model: str, wait: bool, url: str | None, **flags: object) -> None:
    """Unload MODEL from the running daemon, or give up its load or download.

    A model that is answering is left alone: try again, or use --wait.

    \b
    Example:
      ondol stop qwen2-7b-instruct --wait
    """
    with DaemonClient.of(load_settings(flags), url) as daemon:
        stopped = daemon.post_json("/models/unload", {"model": model, "wait": wait})
    click.echo(tr("Unloaded {name}.", name=stopped["model"]), err=True)
