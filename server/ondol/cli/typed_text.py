"""Text from the command line or a pipe, checked to be text.

Knows nothing about what it is for. Invariant: what leaves this module can be encoded as UTF-8.
"""

import sys

import click

from ondol.cli.language import tr


def valid_text(text: str) -> str:
    """The text of an argument; raises UsageError if its bytes were no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise click.UsageError(tr("The text is not valid UTF-8.")) from error
    return text


def stdin_text() -> str:
    """All of standard input, less the line break at its end; raises UsageError if it is no UTF-8."""
    if sys.stdin.isatty():
        click.echo(tr("Type the text; Ctrl-D on an empty line ends it."), err=True)
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(tr("The text is not valid UTF-8.")) from error
