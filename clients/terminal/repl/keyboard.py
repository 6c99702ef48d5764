"""Lines typed by a person: edited by whole characters, with history, completion and several lines.

Knows nothing about what is done with them. Invariant: what was typed is UTF-8, and kept from other users
of the machine, and keys typed during an answer are not shown in its middle.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.validation import Validator

from .errors import ChatError
from .language import Speech
from .text_stream import is_valid

if sys.platform != "win32":
    import termios

PROMPT = "> "
CONTINUATION = "  "


class Keyboard:
    """Enter sends, Alt-Enter begins a line, pasted lines stay together, Tab completes commands."""

    def __init__(
        self, commands: Iterable[str], parameters: Iterable[str], history: History, speech: Speech
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=history,
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation=CONTINUATION,
            completer=CommandCompleter(tuple(commands), tuple(parameters)),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            validator=Validator.from_callable(
                is_valid, error_message=speech("That is not UTF-8: set the terminal to UTF-8.")
            ),
            validate_while_typing=False,
        )

    def read(self) -> str:
        """What was typed; raises EOFError on Ctrl-D, and KeyboardInterrupt."""
        return self._session.prompt()


class CommandCompleter(Completer):
    """Completes `/commands`, and what `/set` may set."""

    def __init__(self, commands: tuple[str, ...], parameters: tuple[str, ...]) -> None:
        self._commands = tuple(f"/{name}" for name in commands)
        self._parameters = parameters

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """All that begin with what is typed."""
        command, space, rest = document.text_before_cursor.partition(" ")
        if not space:
            typed, known = command, self._commands if command else ()
        else:
            typed, known = rest, self._parameters if command == "/set" else ()
        for name in known:
            if name.startswith(typed):
                yield Completion(name, start_position=-len(typed))


def open_history(path: Path | None) -> History:
    """History that only its owner may read; without a path it ends with the chat. Raises ChatError."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ChatError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error
    return FileHistory(str(path))


@contextmanager
def without_echo() -> Iterator[None]:
    """Keys that are typed inside are shown, and edited, with the next line."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings
