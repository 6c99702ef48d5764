"""Reads one call, a JSON object of a name and arguments, while it streams.

Knows nothing about what stands around the object. Invariant: the arguments' text leaves this module
as the model wrote it, character by character; only a quoted one is unquoted, at its end.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

import msgspec

NAME_KEYS = ("name",)
ARGUMENTS_KEYS = ("arguments", "parameters")
NO_ARGUMENTS = "{}"
OPENING, CLOSING = "{[", "}]"

State = Literal["start", "key", "colon", "value", "end", "done", "broken"]


@dataclass(slots=True)
class _Value:
    """One value in the making: where its text is within its own braces and strings."""

    text: list[str] = field(default_factory=list)
    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether a container or a string has ended; a number or a word ends at what follows it."""
        return bool(self.text) and self.depth == 0 and not self.in_string and self.text[-1] in '}]"'

    def add(self, character: str) -> None:
        self.text.append(character)
        if self.in_string:
            if self.is_escaped:
                self.is_escaped = False
            elif character == "\\":
                self.is_escaped = True
            elif character == '"':
                self.in_string = False
        elif character == '"':
            self.in_string = True
        elif character in OPENING:
            self.depth += 1
        elif character in CLOSING:
            self.depth -= 1


class CallScanner:
    """Feed it characters; take what it has found with `take_arguments`.

    Attributes:
        name: the tool's name, once it is known.
        state: "done" after the closing brace; "broken" when the text is no such object.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.state: State = "start"
        self._key = ""
        self._value = _Value()
        self._arguments: list[str] = []
        self._has_arguments = False

    def feed(self, character: str) -> None:
        """Take one character; none may follow the end."""
        steps = {
            "start": self._feed_start,
            "key": self._feed_key,
            "colon": self._feed_colon,
            "value": self._feed_value,
            "end": self._feed_end,
        }
        steps[self.state](character)

    def take_arguments(self) -> str:
        """The arguments' text that came since the last call."""
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    def _feed_start(self, character: str) -> None:
        if not character.isspace():
            self.state = "key" if character == "{" else "broken"

    def _feed_key(self, character: str) -> None:
        if not self._value.text and character != '"':
            if character == "}":
                self._finish()
            elif not character.isspace():
                self.state = "broken"
            return
        self._value.add(character)
        if self._value.is_closed:
            self._key = str(self._decoded())
            self.state = "colon" if self.state != "broken" else "broken"

    def _feed_colon(self, character: str) -> None:
        if not character.isspace():
            self.state = "value" if character == ":" else "broken"

    def _feed_value(self, character: str) -> None:
        value = self._value
        if not value.text and character.isspace():
            return
        if value.depth == 0 and not value.in_string and (character in ",}" or character.isspace()):
            self._end_value()
            if self.state != "broken":
                self.state = "end"
                self._feed_end(character)
            return
        value.add(character)
        if self._is_streamed:
            self._arguments.append(character)
            self._has_arguments = True
        if value.is_closed:
            self._end_value()

    @property
    def _is_streamed(self) -> bool:
        """Arguments leave as they come, unless they are a string that holds JSON, or a word."""
        return self._key in ARGUMENTS_KEYS and self._value.text[0] in OPENING

    def _end_value(self) -> None:
        is_streamed = bool(self._value.text) and self._is_streamed
        value = self._decoded()
        if self.state == "broken":
            return
        self.state = "end"
        if self._key in NAME_KEYS:
            if isinstance(value, str):
                self.name = value
            else:
                self.state = "broken"
        elif self._key in ARGUMENTS_KEYS and not is_streamed and isinstance(value, str):
            self._arguments.append(value)
            self._has_arguments = True

    def _feed_end(self, character: str) -> None:
        if character == ",":
            self.state = "key"
        elif character == "}":
            self._finish()
        elif not character.isspace():
            self.state = "broken"

    def _finish(self) -> None:
        if self.name is None:
            self.state = "broken"
            return
        self.state = "done"
        if not self._has_arguments:
            self._arguments.append(NO_ARGUMENTS)

    def _decoded(self) -> object:
        """The finished value; leaves `_value` empty for the next one."""
        text = "".join(self._value.text)
        self._value = _Value()
        try:
            # Strings are told to clients. msgspec refuses half a character, which UTF-8 cannot carry.
            return msgspec.json.decode(text) if text.startswith('"') else json.loads(text)
        except (ValueError, RecursionError):
            self.state = "broken"
            return None
