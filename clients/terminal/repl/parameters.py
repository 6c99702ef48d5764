"""The parameters that `/set` knows, and their values in this conversation.

Knows nothing about what they do; their ranges are the server's. Invariant: what is not set is not sent,
so that the server's defaults hold.
"""

import difflib
import math
from collections.abc import Callable, Mapping

from .errors import ChatError

Value = str | int | float


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


PARSERS: Mapping[str, Callable[[str], Value]] = {
    "temperature": _number,
    "top_p": _number,
    "top_k": int,
    "min_p": _number,
    "max_tokens": int,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repetition_penalty": _number,
    "seed": int,
    "stop": str,
}


class Parameters:
    """Values by name, in the order in which they were set."""

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self.values: dict[str, Value] = dict(values or {})

    def set(self, name: str, text: str) -> None:
        """Set one, or without text leave it to the server again; raises ChatError."""
        if name not in PARSERS:
            nearest = difflib.get_close_matches(name, PARSERS, n=1, cutoff=0)[0]
            raise ChatError(
                "There is no parameter {name}; the nearest is {nearest}.", name=name, nearest=nearest
            )
        if not text:
            self.values.pop(name, None)
            return
        try:
            self.values[name] = PARSERS[name](text)
        except ValueError:
            raise ChatError("{name} takes a number, not {text}.", name=name, text=text) from None
