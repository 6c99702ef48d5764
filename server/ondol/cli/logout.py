"""`ondol logout`: forget the Hub token.

Knows nothing about the Hub. Invariant: what cannot be forgotten here, a variable, is named.
"""

import click

from ondol.cli.language import tr


@click.command("logout")
def logout_command() -> None:
    """Remove the stored Hugging Face Hub token from this machine; works without a network.

    The token itself stays valid until it is revoked on the Hub's settings page.

    \b
    Example:
      ondol logout
    """
    from ondol.model_manager.hub import account  # noqa: PLC0415 - `--help` does not wait for the Hub's library

    had_token = account.logout()
    note = tr("The stored token was removed.") if had_token else tr("No token was stored.")
    click.echo(note, err=True)
    if account.is_overridden():
        click.echo(tr("HF_TOKEN is set: unset it to stop using that token."), err=True)
