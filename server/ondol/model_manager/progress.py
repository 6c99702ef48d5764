"""Tells the person at the terminal how a pull is doing, and whoever else wants the numbers.

Knows nothing about models. A terminal gets moving bars; a log file or a pipe gets a plain line now
and then. The invariant: everything goes to one stream, never to stdout.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

LINE_INTERVAL_S = 5.0

OnBytes = Callable[[int, int], object]


class TerminalBar(tqdm):  # type: ignore[type-arg]  # generic in its stubs, not at run time
    """A moving bar that reports its numbers to `on_bytes(done_bytes, total_bytes)` as well."""

    def __init__(self, *args: Any, on_bytes: OnBytes | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - tqdm's own arguments
        self._on_bytes = on_bytes
        super().__init__(*args, **kwargs)
        self._report()

    def update(self, n: float | None = 1) -> bool | None:
        """Advance by so many bytes, or go back if negative."""
        is_shown = super().update(n)
        self._report()
        return is_shown

    def _report(self) -> None:
        if self._on_bytes is not None and self.total:
            self._on_bytes(int(self.n), int(self.total))


class LineBar(TerminalBar):
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


class SilentBar(tqdm):  # type: ignore[type-arg]
    """A bar that shows nothing, for libraries that insist on one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - tqdm's own arguments
        super().__init__(*args, **{**kwargs, "disable": True})


class Progress:
    """Notes and bars on one stream (stderr unless told otherwise).

    `on_bytes(done_bytes, total_bytes)` hears the same numbers as the bars show, from whichever thread
    moves the bytes; what it raises ends the pull.
    """

    def __init__(self, stream: TextIO | None = None, *, on_bytes: OnBytes | None = None) -> None:
        self._stream = stream or sys.stderr
        self._on_bytes = on_bytes
        self.bar_class: type[TerminalBar] = TerminalBar if self._stream.isatty() else LineBar

    def note(self, text: str) -> None:
        """One line."""
        if self.bar_class is LineBar:
            print(text, file=self._stream, flush=True)
        else:
            tqdm.write(text, file=self._stream)  # moves the bars out of the way

    def bar(self, description: str, total_bytes: int | None, done_bytes: int = 0) -> TerminalBar:
        """A bar that counts bytes; use as a context manager."""
        return self.bar_class(
            desc=description,
            total=total_bytes,
            initial=done_bytes,
            unit="B",
            unit_scale=True,
            file=self._stream,
            on_bytes=self._on_bytes,
        )

    @contextmanager
    def transfer(self, description: str, total_bytes: int, done_bytes: int = 0) -> Iterator["Transfer"]:
        """Show several files that arrive side by side: a bar for all, and each file's own."""
        with self.bar(description, total_bytes, done_bytes) as bar:
            yield Transfer(self, bar, self._stream)


class Transfer:
    """The files of one pull; safe to use from several threads."""

    def __init__(self, progress: Progress, total: TerminalBar, stream: TextIO) -> None:
        self._progress = progress
        self._total = total
        self._stream = stream
        self._lock = threading.Lock()

    @contextmanager
    def file(self, name: str, total_bytes: int, done_bytes: int = 0) -> Iterator[Callable[[int], None]]:
        """Show one file while it arrives; yields the function that is told of its bytes.

        A terminal gets a bar that goes away, a log file one line when the file is complete.
        """
        is_terminal = not isinstance(self._total, LineBar)
        bar = TerminalBar(
            desc=name,
            total=total_bytes,
            initial=done_bytes,
            unit="B",
            unit_scale=True,
            file=self._stream,
            leave=False,
            disable=not is_terminal,
        )

        def advance(num_bytes: int) -> None:
            with self._lock:
                bar.update(num_bytes)
                self._total.update(num_bytes)

        start_s = time.monotonic()
        with bar:
            yield advance
        if not is_terminal:
            elapsed_s = max(time.monotonic() - start_s, 1e-3)
            rate = tqdm.format_sizeof((total_bytes - done_bytes) / elapsed_s)
            self._progress.note(f"{name}: {tqdm.format_sizeof(total_bytes)}B, {rate}B/s")
