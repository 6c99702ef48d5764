"""Reads server-sent events out of a byte stream.

Knows nothing about JSON or OpenAI. Lines are split on bytes and only at CR LF or LF: a text
splitter would also cut at U+2028 and its like, which JSON may carry raw. A lone CR as a line end,
which the standard allows, is not supported; no known server sends it.
"""


class EventParser:
    """Incremental parser; `push` gives the data of the events that are complete by now."""

    def __init__(self) -> None:
        self._tail = b""
        self._data: list[bytes] = []

    def push(self, block: bytes) -> list[bytes]:
        """Data fields of the events that end within `block`, in order; comments are skipped."""
        *lines, self._tail = (self._tail + block).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[len(b"data:") :].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
