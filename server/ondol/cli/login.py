"""`ondol login`: keep a Hub token, for models that need one.

Knows nothing about the Hub. Invariant: the token is never shown, not even in part.
"""

import sys

import click

from ondol.cli.language import tr


@click.command("login")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input instead of asking.")
def login_command(token_stdin: bool) -> None:
    """Store a Hugging Face Hub token, after the Hub has confirmed it.

    The token goes into the Hub library's own store, so that `hf` and transformers find it as well.
    Make one at https://huggingface.co/settings/tokens; HF_TOKEN wins over it where that is set.

    \b
    Example:
      ondol login
      ondol login --token-stdin < token.txt
    """
    from ondol.model_manager.hub import account  # noqa: PLC0415 - `--help` does not wait for the Hub's library

    token = read_token(is_piped=token_stdin)
    owner = account.login(token)
    click.echo(
        tr(
            "Logged in to {endpoint} as {name} with the token '{token}' ({kind}).",
            endpoint=owner.endpoint,
            name=owner.name,
            token=owner.token_name,
            kind=tr(owner.token_kind),
        ),
        err=True,
    )
    if owner.can_read_gated is False:
        click.echo(
            tr(
                "This token may not read gated repositories such as Llama 2: allow it on {page}.",
                page=account.endpoint_tokens_page(),
            ),
            err=True,
        )
    if account.is_overridden():
        click.echo(
            tr("HF_TOKEN is set to another token and wins over the stored one: unset it to use this login."),
            err=True,
        )


def read_token(*, is_piped: bool) -> str:
    """The token that was typed or piped.

    Raises:
        click.UsageError: there is none, or nobody can type one here.
    """
    if is_piped:
        token = sys.stdin.read().strip()
    elif sys.stdin.isatty():
        token = click.prompt(tr("Token (not shown)"), hide_input=True, err=True).strip()
    else:
        raise click.UsageError(tr("There is no terminal to type a token on: pipe it to `--token-stdin`."))
    if len(token.split()) != 1:
        raise click.UsageError(tr("What was read is no token: it is empty or has spaces in it."))
    return str(token)
