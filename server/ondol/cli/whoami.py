"""`ondol whoami`: whose Hub token is in use, and what it may read.

Knows nothing about the Hub. Invariant: the token is never shown, not even in part.
"""

import json
from dataclasses import asdict

import click

from ondol.cli.language import tr
from ondol.cli.tables import table


@click.command("whoami")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def whoami_command(as_json: bool) -> None:
    """Tell whose Hugging Face Hub token is in use, its kind, and whether it may read gated models.

    Ends with exit code 4 if there is no token or the Hub does not accept it.

    \b
    Example:
      ondol whoami
      ondol whoami --json
    """
    from ondol.model_manager.hub import account  # noqa: PLC0415 - `--help` does not wait for the Hub's library

    owner = account.whoami()
    if as_json:
        print(json.dumps(asdict(owner), indent=2, ensure_ascii=False))
        return
    gated = {True: tr("yes"), False: tr("no"), None: tr("the Hub does not tell")}[owner.can_read_gated]
    source = tr("the variable HF_TOKEN") if owner.token_source == "HF_TOKEN" else tr("`ondol login`")
    row = (owner.name, owner.token_name, tr(owner.token_kind), gated, source, owner.endpoint)
    headers = (tr("NAME"), tr("TOKEN"), tr("KIND"), tr("READS GATED"), tr("FROM"), tr("HUB"))
    print(table(headers, [row]))
