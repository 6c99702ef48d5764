"""What a parser makes of a model's text: text for the reader, and calls of tools.

Knows no family's syntax. Invariant: the pieces of one call's arguments, joined, are its arguments.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of one call.

    Attributes:
        index: which call of the answer, from 0.
        call_id, name: on the call's first piece only.
        arguments: the next part of the JSON text.
    """

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ParsedDelta:
    """What one push released."""

    text: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class ToolCallParser(Protocol):
    """Reads one answer as it streams."""

    def push(self, text: str) -> ParsedDelta:
        """Take the next text of the answer."""
        ...

    def flush(self) -> ParsedDelta:
        """The answer has ended: release what was held back."""
        ...
