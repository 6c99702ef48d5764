"""Commands that are imported only when they run, so that `ondol --help` does not wait for torch.

Knows nothing about any command but its address, name and one line of help. Invariant: listing the
commands imports none of them.
"""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click


class CommandAddress(NamedTuple):
    """Where a command is found ("module:attribute") and the line that the list of commands shows."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A click group over addresses instead of commands."""

    def __init__(self, *, addresses: Mapping[str, CommandAddress], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own keywords, passed through
        self._addresses = dict(addresses)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the addresses."""
        return list(self._addresses)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None where there is no such name."""
        address = self._addresses.get(cmd_name)
        if address is None:
            return None
        module, _, attribute = address.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{address.target} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, address.help) for name, address in self._addresses.items()])
