"""Help pages and usage errors in the user's language, wrapped by the width that characters take.

Knows nothing about single commands. Invariant: an English page is laid out by click itself.
"""

import sys
from collections.abc import Iterable

import click
from wcwidth import wcswidth, wrap

from ondol.cli.language import UNWRAPPED, tr, translator

SMALLEST_COLUMN = 10


class HelpFormatter(click.HelpFormatter):
    """click's formatter, translating what passes through it."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The usage line."""
        super().write_usage(prog, args, tr("Usage:") + " " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        """A section's heading."""
        super().write_heading(tr(heading))

    def write_text(self, text: str) -> None:
        """Paragraphs, wrapped to the page; those that begin with a line of \\b keep their lines."""
        if translator().language == "en":
            super().write_text(text)
            return
        indent = " " * self.current_indent
        pages = [
            self._lines(paragraph, self.width, indent)
            for paragraph in translator().help_text(text).split("\n\n")
        ]
        self.write("\n\n".join("\n".join(page) for page in pages) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Terms and what they mean, in two columns."""
        if translator().language == "en":
            super().write_dl(rows, col_max, col_spacing)
            return
        entries = [(term, translator().option_help(meaning)) for term, meaning in rows]
        first_width = min(max(wcswidth(term) for term, _ in entries), col_max) + col_spacing
        indent = " " * self.current_indent
        hanging = indent + " " * first_width
        for term, meaning in entries:
            fits = wcswidth(term) <= first_width - col_spacing
            width = max(self.width - first_width - 2, SMALLEST_COLUMN)
            lines = self._lines(meaning, width, "")
            opening = f"{indent}{term}" + " " * (first_width - wcswidth(term)) if fits else f"{indent}{term}"
            if fits:
                self.write(f"{opening}{lines[0]}".rstrip() + "\n")
                lines = lines[1:]
            else:
                self.write(f"{opening}\n")
            for line in lines:
                self.write(f"{hanging}{line}\n")

    def _lines(self, paragraph: str, width: int, indent: str) -> list[str]:
        if paragraph.startswith(UNWRAPPED):
            return [f"{indent}{line}".rstrip() for line in paragraph.removeprefix(UNWRAPPED).split("\n")]
        return wrap(paragraph, width, initial_indent=indent, subsequent_indent=indent) or [""]


class HelpContext(click.Context):
    """A context whose help pages are translated."""

    formatter_class = HelpFormatter


def show_click_error(error: click.ClickException) -> None:
    """Write what was wrong with the command line to stderr, as click does, in the user's language."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), file=sys.stderr)
        click.echo(tr("Try '{command} --help' for help.", command=context.command_path) + "\n", err=True)
    message = translator().composed(error.format_message())
    click.echo(tr("Error: {message}", message=message), err=True)
