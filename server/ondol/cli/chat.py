"""`ondol chat [MODEL]`: a conversation in the terminal.

Knows nothing about where the model runs. Invariant: nothing is read from a pipe as if it were typed.
"""

import sys

import click

from ondol.cli.asked_model import Sampling
from ondol.cli.language import tr
from ondol.cli.repl import Repl
from ondol.cli.serving_model import serving_model, serving_options


@click.command("chat")
@click.argument("model", required=False)
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0), metavar="T", help="0 takes the likeliest token.")
@serving_options
def chat_command(
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    url: str | None,
    **flags: object,
) -> None:
    """Chat with MODEL in the terminal; without MODEL, with the first that the daemon offers.

    The running daemon answers if it offers MODEL; else a temporary one is started and ended.
    Ctrl-C stops an answer, Ctrl-D ends the chat, /help lists what else there is.

    \b
    Example:
      ondol chat starter --system "Answer in Korean."
    """
    if not sys.stdin.isatty():
        raise click.UsageError(tr("A chat needs a terminal; for a pipe there is `ondol run`."))
    with serving_model(model, Sampling(max_tokens, temperature), url=url, flags=flags) as asked:
        Repl(asked, system).run()
