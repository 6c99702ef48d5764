"""`--lang en|ko`, and the locale that stands in for it.

Knows nothing about translations. Invariant: the flag wins over LC_ALL over LC_MESSAGES over LANG, as
POSIX orders them.
"""

from collections.abc import Callable
from typing import Any, get_args

import click

from ondol.cli.language import Language, language_of, use_language

LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


class LanguageOption(click.Option):
    """An option whose variables hold locale names."""

    def resolve_envvar_value(self, ctx: click.Context) -> Language | None:
        """The language of the first locale variable that is set."""
        locale = super().resolve_envvar_value(ctx)
        return None if locale is None else language_of(locale)


def language_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the command speaks the language of `--lang` or of the locale."""
    return click.option(
        "--lang",
        cls=LanguageOption,
        type=click.Choice(get_args(Language)),
        envvar=LOCALE_VARIABLES,
        is_eager=True,
        expose_value=False,
        callback=_speak,
        help="Language of help and messages [default: the locale's].",
    )(function)


def _speak(ctx: click.Context, option: click.Parameter, language: Language | None) -> None:
    use_language(language or "en")
