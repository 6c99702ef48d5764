"""`ondol list`: the models on this machine, and those a pull away.

Knows nothing about where models are kept. Invariant: stdout is the list and nothing else.
"""

import json
from dataclasses import asdict

import click

from ondol.cli.flags import settings_options
from ondol.config import load_settings
from ondol.model_manager.inventory import ModelListing, list_models
from ondol.model_manager.store import gigabytes

COLUMNS = ("NAME", "STATUS", "SIZE", "SOURCE")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@settings_options("home")
def list_command(as_json: bool, **flags: object) -> None:
    """List the models of the local store, the catalog and the Hub's cache."""
    listings = list_models(load_settings(flags).home)
    if as_json:
        print(json.dumps([asdict(listing) for listing in listings], indent=2, ensure_ascii=False))
        return
    rows = [COLUMNS, *(row(listing) for listing in listings)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(COLUMNS))]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def row(listing: ModelListing) -> tuple[str, str, str, str]:
    """The cells of one model."""
    size = "-" if listing.size_bytes is None else gigabytes(listing.size_bytes)
    return listing.name, listing.status, size, listing.source
