"""The conversation of `ondol chat`: lines in, streamed answers out.

Knows nothing about where the model runs. Invariant: what the model is sent is exactly what was said;
a turn that failed is taken back, and a stopped answer stays as far as it was written.
"""

import re
import sys
from collections.abc import Callable
from contextlib import closing

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory

from ondol.cli.asked_model import AskedModel, Message
from ondol.cli.language import tr, translator
from ondol.errors import OndolError

COMMAND = re.compile(r"/(?P<name>[a-z]+)(?:\s+(?P<text>.*))?", re.DOTALL)
PROMPT = "> "


class Repl:
    """One conversation; `read` gives a line, or raises EOFError (Ctrl-D) or KeyboardInterrupt."""

    def __init__(
        self, model: AskedModel, system: str | None = None, read: Callable[[], str] | None = None
    ) -> None:
        self._model = model
        self._system = system
        self._read = read or _prompt()
        self._turns: list[Message] = []
        self._is_over = False
        self._commands = {
            "help": self._help,
            "clear": self._clear,
            "system": self._set_system,
            "exit": self._exit,
        }

    def run(self) -> None:
        """Talk until Ctrl-D or /exit; Ctrl-C stops an answer, or empties the line being typed."""
        _say(tr("Chatting with {model}. /help lists the commands, Ctrl-D ends.", model=self._model.name))
        while not self._is_over:
            try:
                line = self._read().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if found := COMMAND.fullmatch(line):
                self._command(found["name"], found["text"] or "")
            elif line:
                self._turn(line)

    def _command(self, name: str, text: str) -> None:
        act = self._commands.get(name)
        if act is None:
            _say(tr("There is no command /{name}; /help lists them.", name=name))
        else:
            act(text)

    def _help(self, _: str) -> None:
        _say(tr("/clear         forget the conversation"))
        _say(tr("/system TEXT   set the system prompt; without TEXT, remove it"))
        _say(tr("/exit          end, as Ctrl-D does"))
        _say(tr("Ctrl-C         stop the answer"))

    def _clear(self, _: str) -> None:
        self._turns.clear()
        _say(tr("The conversation is forgotten."))

    def _set_system(self, text: str) -> None:
        self._system = text or None
        _say(tr("System prompt: {text}", text=text) if text else tr("There is no system prompt now."))

    def _exit(self, _: str) -> None:
        self._is_over = True

    def _turn(self, line: str) -> None:
        self._turns.append({"role": "user", "content": line})
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        did_chat = not self._model.continues_text
        written: list[str] = []
        try:
            self._stream([*system, *self._turns], written)
        except KeyboardInterrupt:
            _say("\n" + tr("Stopped."))
        except OndolError as error:
            self._turns.pop()
            _say(tr("error: {message}", message=translator().composed(str(error))))
            return
        if self._model.continues_text:
            self._turns.clear()  # a model without a chat template reads one text at a time
            if did_chat:
                _say(
                    tr(
                        "{model} has no chat template: it continues each text by itself.",
                        model=self._model.name,
                    )
                )
        else:
            self._turns.append({"role": "assistant", "content": "".join(written)})

    def _stream(self, messages: list[Message], written: list[str]) -> None:
        finish_reason = None
        with closing(self._model.answer(messages)) as parts:  # type: ignore[type-var]  # a generator
            for part in parts:
                written.append(part.text)
                sys.stdout.write(part.text)
                sys.stdout.flush()
                finish_reason = part.finish_reason or finish_reason
        sys.stdout.write("\n")
        if finish_reason == "length":
            _say(tr("The answer was cut: it reached the limit of tokens."))


def _prompt() -> Callable[[], str]:
    session: PromptSession[str] = PromptSession(PROMPT, history=InMemoryHistory(), reserve_space_for_menu=0)
    return session.prompt


def _say(text: str) -> None:
    """Words of this program, apart from the model's."""
    print(text, file=sys.stderr, flush=True)
