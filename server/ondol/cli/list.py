"""`ondol list`: the models on this machine, and those a pull away.

Knows nothing about where models are kept. Invariant: stdout is the list and nothing else.
"""

import json
from dataclasses import asdict

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.model_manager.inventory import ModelListing, list_models
from ondol.model_manager.store import gigabytes

RIGHT_ALIGNED = (2,)
NOTHING = "-"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@settings_options("home")
def list_command(as_json: bool, **flags: object) -> None:
    """List the models of the local store, the catalog and the Hub's cache.

    STATUS is ready, incomplete (an interrupted download) or available (`ondol pull` fetches it). Gated
    models need an account that accepted their licence: see `ondol login`.

    \b
    Example:
      ondol list
      ondol list --json
    """
    listings = list_models(load_settings(flags).home)
    if as_json:
        print(json.dumps([asdict(listing) for listing in listings], indent=2, ensure_ascii=False))
        return
    headers = ("NAME", "STATUS", "SIZE", "QUANTIZATION", "GATED", "SOURCE")
    print(table([tr(header) for header in headers], [row(listing) for listing in listings], RIGHT_ALIGNED))


def row(listing: ModelListing) -> tuple[str, ...]:
    """The cells of one model."""
    return (
        listing.name,
        tr(listing.status),
        NOTHING if listing.size_bytes is None else gigabytes(listing.size_bytes),
        listing.quantization or NOTHING,
        tr("yes") if listing.is_gated else NOTHING,
        listing.source,
    )
