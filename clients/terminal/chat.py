"""Chat in the terminal with a model of any OpenAI-compatible server.

    pip install openai prompt-toolkit wcwidth
    python chat.py --base-url http://127.0.0.1:8000/v1 --model starter

Knows nothing about Ondol: `ondol chat` is the same conversation for who has Ondol installed.
"""

import argparse
import io
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from repl.conversation import Conversation
from repl.errors import ChatError
from repl.keyboard import Keyboard, open_history, without_echo
from repl.language import Speech, language_of
from repl.loop import COMMANDS, Repl
from repl.parameters import PARSERS, Parameters
from repl.served_model import ServedModel
from repl.text_stream import is_valid

LOOPBACK = ("localhost", "127.0.0.1", "::1")
LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


def arguments() -> argparse.Namespace:
    """This process's arguments."""
    locale = next(filter(None, map(os.environ.get, LOCALE_VARIABLES)), "")
    parser = argparse.ArgumentParser(description="Chat with a model of an OpenAI-compatible server.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1", help="default: %(default)s")
    parser.add_argument("--model", help="default: the first that the server offers")
    parser.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    parser.add_argument("--system", help="system prompt")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"parameter: {', '.join(PARSERS)}"
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="keep what you type in FILE")
    parser.add_argument("--lang", choices=("ko", "en"), default=language_of(locale))
    return parser.parse_args()


def converse(options: argparse.Namespace, speech: Speech) -> None:
    """Talk until the person has had enough; raises ChatError if that cannot begin."""
    if not sys.stdin.isatty():
        raise ChatError("A chat needs a terminal.")
    if not is_valid(options.system or ""):
        raise ChatError("That is not UTF-8: set the terminal to UTF-8.")
    parameters = Parameters()
    for assignment in options.set:
        name, _, value = assignment.partition("=")
        parameters.set(name, value)
    is_remote = urlsplit(options.base_url).hostname not in LOOPBACK
    with ServedModel(options.base_url, options.model or "", options.api_key, uses_proxies=is_remote) as model:
        if not model.name:
            names = model.names()
            if not names:
                raise ChatError("The server at {url} offers no model.", url=options.base_url)
            model.name = names[0]
        keyboard = Keyboard(COMMANDS, PARSERS, open_history(options.history), speech)
        Repl(
            model,
            keyboard.read,
            speech,
            conversation=Conversation(options.system),
            parameters=parameters,
            while_answering=without_echo,
        ).run()


def main() -> int:
    """Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Under a locale without Hangul text is shown as escapes; the chat goes on.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = arguments()
    speech = Speech(options.lang)
    try:
        converse(options, speech)
    except ChatError as error:
        sys.stderr.write(speech("error: {message}", message=speech.error(error)) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
