"""Commands that are imported only when they run, so that `ondol --help` does not wait for torch.

Knows nothing about any command but its address, name and one line of help. Invariant: listing the
commands imports none of them.
"""

import copy
import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click

from ondol.cli.help_pages import HelpContext
from ondol.cli.language import tr, translator, use_language
from ondol.cli.language_option import LanguageOption
from ondol.errors import OndolError

OWN_PACKAGE = "ondol"


class LibraryMissing(OndolError):
    """A command needs a library that is not installed, or that does not load."""


class CommandAddress(NamedTuple):
    """Where a command is found ("module:attribute") and the line that the list of commands shows."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A click group over addresses instead of commands."""

    context_class = HelpContext

    def __init__(self, *, addresses: Mapping[str, CommandAddress], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own keywords, passed through
        self._addresses = dict(addresses)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Follow the locale before parsing, so that `--help` and parse errors do too."""
        for option in self.params:
            if isinstance(option, LanguageOption):
                use_language(option.resolve_envvar_value(ctx) or "en")
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the addresses."""
        return list(self._addresses)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None where there is no such name.

        Raises LibraryMissing, so that a broken installation is told in one line.
        """
        address = self._addresses.get(cmd_name)
        if address is None:
            return None
        module, _, attribute = address.target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            if (error.name or "").partition(".")[0] in ("", OWN_PACKAGE):
                raise  # a bug of ours, not of the installation
            raise LibraryMissing(
                tr(
                    "`ondol {command}` needs the library {library}, which cannot be imported: {reason}. "
                    "Run `ondol doctor`, or install Ondol again with pip.",
                    command=cmd_name,
                    library=error.name,
                    reason=error.msg,
                )
            ) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{address.target} is no click command")
        return speaking(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, address.help) for name, address in self._addresses.items()])


def speaking(command: click.Command) -> click.Command:
    """A copy of the command, and of commands under it, whose help pages are in the user's language."""
    copied = copy.copy(command)
    copied.context_class = HelpContext
    if copied.help and translator().language != "en":
        # Before click shortens it, for what is cut off has no translation.
        copied.short_help = translator().help_text(copied.help.partition("\n\n")[0])
    if isinstance(copied, click.Group):
        copied.commands = {name: speaking(inner) for name, inner in copied.commands.items()}
    return copied
