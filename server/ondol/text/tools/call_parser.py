"""Finds calls in an answer that streams: what starts them, what stands between them, what ends them.

One parser for every family that writes calls as JSON objects; `CallSyntax` tells the families apart.
Knows nothing about grammars or templates. Invariant: what is released does not depend on how the
answer was cut into deltas.
"""

import secrets
import string
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from ondol.text.stop_strings import PrefixMatcher
from ondol.text.tools.call_scanner import CallScanner
from ondol.text.tools.calls import ParsedDelta, ToolCallDelta

SHORT_ID_LENGTH = 9

Place = Literal["text", "head", "call", "between"]


def long_id() -> str:
    """An id as OpenAI makes them."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """Nine letters and digits, the only ids that Mistral's templates take back."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(SHORT_ID_LENGTH))


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How a family writes calls.

    Attributes:
        start: the marker in front of calls.
        end: the marker behind them; "" if the answer just ends.
        separators: characters that may stand between start, calls and end, besides white space.
        is_bare: a call may also begin the answer without the marker.
        names_in_front: the name stands before the arguments and not inside an object, up to this marker.
        new_id: makes the id of a call.
    """

    start: str
    end: str = ""
    separators: str = ""
    is_bare: bool = False
    names_in_front: str = ""
    new_id: Callable[[], str] = long_id


class CallParser:
    """A `ToolCallParser` for one answer."""

    def __init__(self, syntax: CallSyntax, tool_names: Collection[str]) -> None:
        """`tool_names`: a bare object is a call only if it names one of these."""
        self._syntax = syntax
        self._tool_names = frozenset(tool_names)
        self._place: Place = "text"
        self._start = PrefixMatcher(syntax.start)
        self._held = ""  # text that may be the start marker, white space before it, or a broken call
        self._is_bare_call = False
        self._has_name_in_front = False
        self._seen_text = False
        self._head = ""
        self._scanner = CallScanner()
        self._num_calls = 0
        self._is_announced = False
        self._text: list[str] = []
        self._calls: list[ToolCallDelta] = []

    def push(self, text: str) -> ParsedDelta:
        """Take the next text of the answer."""
        steps = {
            "text": self._push_text,
            "head": self._push_head,
            "call": self._push_call,
            "between": self._push_between,
        }
        for character in text:
            steps[self._place](character)
        if self._place == "call":
            self._release_arguments()
        return self._released()

    def flush(self) -> ParsedDelta:
        """The answer has ended: release what was held back."""
        if self._place == "call":
            self._release_arguments()
        is_marker_alone = self._place in ("head", "between") and self._held.startswith(self._syntax.start)
        is_unknown_call = self._place == "call" and not self._is_announced
        if self._place == "text" or is_marker_alone or is_unknown_call:
            self._give_text(self._held)
        self._held = ""
        return self._released()

    def _released(self) -> ParsedDelta:
        delta = ParsedDelta("".join(self._text), tuple(self._calls))
        self._text.clear()
        self._calls.clear()
        return delta

    def _push_text(self, character: str) -> None:
        self._held += character
        if self._syntax.is_bare and not self._seen_text and self._held.strip() == "{":
            self._begin_call(is_bare=True)
            self._scanner.feed(character)
            return
        if self._start.advance(character):
            before = self._held[: -len(self._syntax.start)]
            self._give_text(before.rstrip())
            self._held = self._syntax.start
            self._place = "head" if self._syntax.names_in_front else "between"
            self._begin_search()
            return
        # White space before a marker belongs to the marker.
        num_kept = len(self._held) - self._start.num_matched
        num_released = len(self._held[:num_kept].rstrip())
        self._give_text(self._held[:num_released])
        self._held = self._held[num_released:]

    def _begin_search(self) -> None:
        self._start = PrefixMatcher(self._syntax.start)
        self._head = ""

    def _give_text(self, text: str) -> None:
        if self._num_calls and not self._seen_text:
            text = text.lstrip()
        if text.strip():
            self._seen_text = True
        if text:
            self._text.append(text)

    def _begin_call(self, *, is_bare: bool) -> None:
        self._place = "call"
        self._scanner = CallScanner()
        self._is_announced = False
        self._is_bare_call = is_bare
        self._has_name_in_front = False

    def _push_head(self, character: str) -> None:
        """The name in front of the arguments, as in `name[ARGS]{...}`."""
        self._held += character
        self._head += character
        if character in "{[" and self._head.strip() == character:
            # An older form of the family: the name is inside.
            self._place = "between"
            self._held = self._held[:-1]
            self._push_between(character)
        elif character == "{" and self._head[:-1].strip().endswith(self._syntax.names_in_front):
            name = self._head.split("[", 1)[0].strip()
            self._begin_call(is_bare=False)
            self._has_name_in_front = True
            # The scanner reads the object that the older form would have had.
            for part in json_head(name):
                self._scanner.feed(part)
            self._scanner.feed(character)

    def _push_call(self, character: str) -> None:
        self._held += character
        self._scanner.feed(character)
        if self._scanner.state == "broken":
            self._break_call()
        elif self._has_name_in_front and self._scanner.state == "end":
            self._scanner.feed("}")
        if self._scanner.state == "done":
            self._release_arguments()
            if self._is_announced:
                self._num_calls += 1
                self._held = ""
                self._place = "between"
            else:
                self._break_call()

    def _break_call(self) -> None:
        """Not a call after all: what was not released yet is text."""
        if self._is_announced:
            self._num_calls += 1
        else:
            self._seen_text = True
            self._give_text(self._held)
        self._held = ""
        self._place = "text"

    def _release_arguments(self) -> None:
        scanner = self._scanner
        if scanner.name is None:
            return
        if not self._is_announced:
            if self._is_bare_call and scanner.name not in self._tool_names:
                return
            self._is_announced = True
            self._seen_text = False
            self._calls.append(ToolCallDelta(self._num_calls, self._syntax.new_id(), scanner.name))
        arguments = scanner.take_arguments()
        if arguments:
            self._calls.append(ToolCallDelta(self._num_calls, arguments=arguments))

    def _push_between(self, character: str) -> None:
        self._held += character
        between = self._held.removeprefix(self._syntax.start).strip()
        if character == "{":
            self._begin_call(is_bare=False)
            self._scanner.feed(character)
        elif self._syntax.end and self._syntax.end.startswith(between.lstrip(self._syntax.separators)):
            if between.endswith(self._syntax.end):
                self._held = ""
                self._place = "text"
        elif not (character.isspace() or character in self._syntax.separators):
            self._restart_text()

    def _restart_text(self) -> None:
        """Something else than a call follows; it may hold the next marker."""
        held, self._held = self._held, ""
        self._place = "text"
        self._begin_search()
        if held.startswith(self._syntax.start):  # a marker without a call is only text
            self._give_text(self._syntax.start)
            held = held.removeprefix(self._syntax.start)
        for character in held:
            self._push_text(character)


def json_head(name: str) -> str:
    """The beginning of a call's object up to its arguments."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"name": "{escaped}", "arguments": '
