"""The language of the terminal: English sentences are the keys, Korean ones their translations.

Knows nothing about commands. The language belongs to the context that a command line runs in, not to
the process. Invariant: a sentence without a translation appears in English, whole.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import resources
from typing import Literal, get_args

Language = Literal["en", "ko"]

# A folder for each language but English; every file in it is a part of one table.
MESSAGES_FOLDER = "messages"
# The parts whose sentences arrive with their places filled.
COMPOSED_PREFIX = "composed"
PLACE = re.compile(r"\{(\w+)(?:[!:][^{}]*)?\}")
# A sentence inside a sentence inside a sentence: nothing composes its messages deeper.
MAX_DEPTH = 3
# A template that is hardly more than its places would take any text for its own.
MIN_OWN_CHARACTERS = 4
# `[default: 8000]`, as click and the settings' flags put it behind an option's help.
EXTRAS = re.compile(r"(?P<body>.*?)(?P<gap>\s+)\[(?P<items>[^\[\]]*)\]", re.DOTALL)
# What stands before the words of a line that must not be re-wrapped: an indent, an exit code.
LINE = re.compile(r"(?P<lead>\s*(?:\d+\s{2,})?)(?P<words>.*)")
UNWRAPPED = "\b\n"


class Translator:
    """Sentences of one language by their English templates; without any, everything stays English."""

    def __init__(
        self, language: Language, templates: Mapping[str, str], composed: Mapping[str, str] | None = None
    ) -> None:
        """`composed` are the templates that whole messages are compared with; they are in use for both."""
        self.language = language
        self._composed = composed or {}
        self._templates = {**templates, **self._composed}
        self._patterns: list[tuple[re.Pattern[str], str]] | None = None

    @classmethod
    def load(cls, language: Language) -> "Translator":
        """The translator with the catalog that is shipped for `language`."""
        if language == "en":
            return cls(language, {})
        parts = load_messages(language)
        composed = {name: part for name, part in parts.items() if name.startswith(COMPOSED_PREFIX)}
        return cls(language, merged(parts), merged(composed))

    def sentence(self, english: str) -> str:
        """The template's translation, places unfilled."""
        return self._templates.get(english, english)

    def composed(self, text: str, depth: int = MAX_DEPTH) -> str:
        """The translation of a sentence whose places are already filled.

        Templates with the most words of their own are tried first; what stood in a place is translated
        in turn, for messages contain messages.
        """
        if not self._templates or not depth or not text.strip():
            return text
        if text in self._templates:
            return self._templates[text]
        if self._patterns is None:
            self._patterns = _patterns(self._composed)
        for pattern, translation in self._patterns:
            if found := pattern.fullmatch(text):
                values = {name: self._inner(value, depth) for name, value in found.groupdict().items()}
                return fill(translation, values)
        if text.endswith("."):  # a part of a message that has become its end
            inner = self.composed(text[:-1], depth)
            return text if inner == text[:-1] else f"{inner}."
        return text

    def _inner(self, value: str, depth: int) -> str:
        """A place's value, whose leading space belongs to the sentence around it."""
        stripped = value.strip()
        return value.replace(stripped, self.composed(stripped, depth - 1)) if stripped else value

    def help_text(self, text: str) -> str:
        """A help text, paragraph by paragraph; lines that must not be wrapped, line by line."""
        return "\n\n".join(self._paragraph(part) for part in text.split("\n\n"))

    def option_help(self, text: str) -> str:
        """An option's help; click's own additions in brackets are sentences of their own."""
        found = EXTRAS.fullmatch(text)
        if not found or text in self._templates:
            return self.help_text(text)
        items = "; ".join(self.composed(item) for item in found["items"].split("; "))
        return f"{self.help_text(found['body'])}{found['gap']}[{items}]"

    def _paragraph(self, text: str) -> str:
        if text.startswith(UNWRAPPED):
            return "\n".join(self._line(line) for line in text.split("\n"))
        return self.sentence(" ".join(text.split())) if self._templates else text

    def _line(self, line: str) -> str:
        found = LINE.fullmatch(line)
        return f"{found['lead']}{self.sentence(found['words'])}" if found else line


def load_messages(language: Language) -> dict[str, dict[str, dict[str, str]]]:
    """The shipped sentences: file -> section -> English template -> translation."""
    folder = resources.files("ondol.cli").joinpath(MESSAGES_FOLDER, language)
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {entry.name: tomllib.loads(entry.read_text(encoding="utf-8")) for entry in files}


def merged(parts: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    """All sections of all files as one table."""
    sections = (section for part in parts.values() for section in part.values())
    return {english: text for section in sections for english, text in section.items()}


ENGLISH = Translator("en", {})
_translator: ContextVar[Translator] = ContextVar("translator", default=ENGLISH)


def tr(english: str, **values: object) -> str:
    """The sentence in the user's language, with `{name}` places filled from `values`."""
    template = _translator.get().sentence(english)
    return template.format(**values) if values else template


def translator() -> Translator:
    """The translator of this context."""
    return _translator.get()


def use_language(language: Language) -> None:
    """Speak `language` in this context from now on."""
    if language != _translator.get().language:
        _translator.set(Translator.load(language))


@contextmanager
def spoken(language: Language) -> Iterator[None]:
    """Speak `language` inside the block."""
    token = _translator.set(Translator.load(language))
    try:
        yield
    finally:
        _translator.reset(token)


def language_of(locale: str) -> Language:
    """The language of a POSIX locale name such as ko_KR.UTF-8; English where there is no catalog."""
    prefix = re.split(r"[_.@-]", locale.lower(), maxsplit=1)[0]
    return next((language for language in get_args(Language) if language == prefix), "en")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with text in its places; conversions and formats of the places have been applied."""
    return PLACE.sub(lambda place: values[place[1]], template).replace("{{", "{").replace("}}", "}")


def places(template: str) -> list[str]:
    """The names of a template's places, sorted."""
    return sorted(PLACE.findall(template.replace("{{", "").replace("}}", "")))


def _patterns(templates: Mapping[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """Patterns of the templates with places; those with most words of their own come first."""
    with_words = [
        english
        for english in templates
        if PLACE.search(english) and len(PLACE.sub("", english)) >= MIN_OWN_CHARACTERS
    ]
    with_words.sort(key=lambda english: len(PLACE.sub("", english)), reverse=True)
    return [(_pattern(english), templates[english]) for english in with_words]


def _pattern(english: str) -> re.Pattern[str]:
    """A pattern for the sentences that `english` becomes; a place may be empty or span lines."""
    parts = PLACE.split(english)
    seen: set[str] = set()
    pattern = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            pattern += re.escape(part.replace("{{", "{").replace("}}", "}"))
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.*?)"
            seen.add(part)
    return re.compile(pattern, re.DOTALL)
