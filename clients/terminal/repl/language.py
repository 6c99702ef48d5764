"""What the REPL says, in English or Korean; English sentences are the keys.

Knows nothing about when they are said. Invariant: a sentence without a translation appears in English.
"""

import re
from collections.abc import Mapping

from .errors import ChatError
from .korean import KOREAN

ENGLISH: Mapping[str, str] = {}


class Speech:
    """Says the program's sentences in one language, "ko" or "en"."""

    def __init__(self, language: str) -> None:
        self._templates = KOREAN if language == "ko" else ENGLISH

    def __call__(self, english: str, **values: object) -> str:
        """The sentence, its `{name}` places filled from `values`."""
        return self._templates.get(english, english).format(**values)

    def error(self, error: ChatError) -> str:
        """What an error says."""
        return self(error.template, **error.values)


def language_of(locale: str) -> str:
    """The language for a POSIX locale name such as ko_KR.UTF-8."""
    return "ko" if re.match(r"ko(?![a-z])", locale.lower()) else "en"
