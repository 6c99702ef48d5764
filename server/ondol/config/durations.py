"""Lengths of time as people write them: 300, "5m", "1h30m", 0, -1.

Settings and request bodies read them with the same function. Knows nothing about what is timed. The
invariant: what comes out is a number of seconds, not negative, and infinite for "never".
"""

import math
import re

NEVER = -1
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"
_PARTS = re.compile(_PART)
_DURATION = re.compile(f"(?:{_PART})+")


def parse_duration(value: object) -> float:
    """Seconds; `math.inf` for any negative number, which means "never".

    Takes a number of seconds, or a text: a number, or parts with units ("90s", "5m", "1h30m").

    Raises:
        ValueError: it is neither; the message names what is accepted.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if _DURATION.fullmatch(text):
            return math.fsum(float(number) * UNIT_SECONDS[unit] for number, unit in _PARTS.findall(text))
        try:
            value = float(text)
        except ValueError:
            raise _not_a_duration(value) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise _not_a_duration(value)
    return math.inf if value < 0 else float(value)


class Duration(float):
    """Seconds that are shown as a person writes them; see `duration_text`."""

    def __str__(self) -> str:
        return duration_text(self)


def duration_text(seconds: float) -> str:
    """How a person reads it, and `parse_duration` too: "10m", "1h30m", "2.5s", "-1" for never."""
    if math.isinf(seconds):
        return str(NEVER)
    if seconds != int(seconds):
        return f"{seconds:g}s"
    parts = []
    rest = int(seconds)
    for unit in ("h", "m", "s"):
        count, rest = divmod(rest, int(UNIT_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0"


def _not_a_duration(value: object) -> ValueError:
    return ValueError(f'{value!r} is no length of time: give seconds, "5m", "1h30m", 0, or -1 for never')
