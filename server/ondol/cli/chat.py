"""`ondol chat [MODEL]`: a conversation in the terminal.

Knows nothing about where the model runs. Invariant: nothing is read from a pipe as if it were typed.
"""

import sys
from pathlib import Path

import click

from ondol.cli.asked_model import AskedModel, Sampling
from ondol.cli.language import tr, translator
from ondol.cli.repl.conversation import Conversation
from ondol.cli.repl.errors import ChatError
from ondol.cli.repl.keyboard import Keyboard, open_history, without_echo
from ondol.cli.repl.language import Speech
from ondol.cli.repl.loop import COMMANDS, Repl
from ondol.cli.repl.parameters import PARSERS, Parameters
from ondol.cli.repl.served_model import ServedModel
from ondol.cli.serving_model import note, serving_model, serving_options
from ondol.cli.typed_text import valid_text
from ondol.config import load_settings

HISTORY_FILE = "chat_history"


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
    system = valid_text(system) if system else None
    with serving_model(model, Sampling(max_tokens, temperature), url=url, flags=flags) as asked:
        converse(asked, system, load_settings(flags).home / HISTORY_FILE)


def converse(asked: AskedModel, system: str | None, history: Path) -> None:
    """Talk with the model until the person has had enough; what they type is kept in `history`."""
    speech = Speech(translator().language)
    with ServedModel(f"{asked.client.url}/v1", asked.name, asked.client.api_key) as model:
        try:
            typed_before = open_history(history)
        except ChatError as error:
            note(speech.error(error))
            typed_before = open_history(None)
        Repl(
            model,
            Keyboard(COMMANDS, PARSERS, typed_before, speech).read,
            speech,
            conversation=Conversation(system),
            parameters=Parameters(asked.sampling.fields()),
            while_answering=without_echo,
            translate=translator().composed,
        ).run()
