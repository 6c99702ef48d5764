"""Tells the person at the terminal how a pull is doing.

Knows nothing about models. A terminal gets moving bars; a log file or a pipe gets a plain line now
and then. The invariant: everything goes to one stream, never to stdout.
"""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

LINE_INTERVAL_S = 5.0


class LineBar(tqdm):  # type: ignore[type-arg]  # generic in its stubs, not at run time
    """A progress bar for streams that cannot move the cursor: a line every few seconds."""

    _last_line_s: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the state as a line of its own, unless one was printed just now."""
        now_s = time.monotonic()
        is_due = self._last_line_s is None or now_s - self._last_line_s >= LINE_INTERVAL_S
        if self.total and is_due:
            self._last_line_s = now_s
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()

    def close(self) -> None:
        """End without the empty line that a moving bar leaves behind."""
        self.disable = True


class Progress:
    """Notes and bars on one stream (stderr unless told otherwise)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.bar_class: type[tqdm[Any]] = tqdm if self._stream.isatty() else LineBar

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)

    def bar(self, description: str, total_bytes: int | None) -> "tqdm[Any]":
        """A bar that counts bytes; use as a context manager."""
        return self.bar_class(
            desc=description,
            total=total_bytes,
            unit="B",
            unit_scale=True,
            file=self._stream,
        )
