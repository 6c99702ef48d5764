"""The conversation itself: lines in, streamed answers out.

Knows nothing about HTTP or keys. Invariant: what the model is sent is exactly what was said; a question
without any answer is taken back, and an answer that was stopped or broke off stays as far as it came.
"""

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from .conversation import Conversation, load, save
from .errors import ChatError
from .language import Speech
from .parameters import PARSERS, Parameters
from .served_model import ServedModel
from .text_stream import TextStream

COMMAND = re.compile(r"/(?P<name>[a-z]+)(?:\s+(?P<text>.*))?", re.DOTALL)


class Repl:
    """One conversation; `read` gives a line, or raises EOFError (Ctrl-D) or KeyboardInterrupt."""

    def __init__(
        self,
        model: ServedModel,
        read: Callable[[], str],
        speech: Speech,
        *,
        conversation: Conversation | None = None,
        parameters: Parameters | None = None,
        while_answering: Callable[[], AbstractContextManager[None]] = nullcontext,
        translate: Callable[[str], str] = str,
    ) -> None:
        """`translate` turns the server's own sentences into the user's language."""
        self._model = model
        self._read = read
        self._tr = speech
        self._conversation = conversation or Conversation()
        self._parameters = parameters or Parameters()
        self._while_answering = while_answering
        self._translate = translate
        self._file: Path | None = None
        self._num_tokens: int | None = None
        self._is_over = False

    def run(self) -> None:
        """Talk until Ctrl-D or /exit; Ctrl-C stops an answer, or empties the line being typed."""
        self._say(
            self._tr("Chatting with {model}. /help lists the commands, Ctrl-D ends.", model=self._model.name)
        )
        while not self._is_over:
            try:
                line = self._read().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            try:
                self._take(line)
            except KeyboardInterrupt:
                continue  # of something that takes long without an answer
            except ChatError as error:
                self._say_error(error)

    def _take(self, line: str) -> None:
        if found := COMMAND.fullmatch(line):
            act = COMMANDS.get(found["name"])
            if act is None:
                raise ChatError("There is no command /{name}; /help lists them.", name=found["name"])
            act(self, (found["text"] or "").strip())
        elif line:
            self._ask(line)

    def _ask(self, text: str) -> None:
        if self._model.continues_text:
            self._conversation.messages.clear()  # each text is read by itself
        self._conversation.ask(text)
        try:
            self._answer()
        finally:
            if self._conversation.answer is None:
                self._conversation.take_back()

    def help(self, _: str) -> None:
        """/help."""
        for line in HELP:
            self._say(self._tr(line))

    def show(self, _: str) -> None:
        """/show."""
        self._say(self._tr("Model: {model} at {url}", model=self._model.name, url=self._model.base_url))
        self._say_system()
        set_here = ", ".join(f"{name}={value}" for name, value in self._parameters.values.items())
        self._say(self._tr("Parameters: {values}", values=set_here or self._tr("the server's defaults")))
        self._say(self._tr("Messages: {count}", count=len(self._conversation.messages)))
        if self._num_tokens is not None:
            self._say(self._tr("The last answer took {count} tokens.", count=self._num_tokens))

    def clear(self, _: str) -> None:
        """/clear."""
        self._conversation.messages.clear()
        self._file = None
        self._say(self._tr("The conversation is forgotten."))

    def system(self, text: str) -> None:
        """/system."""
        self._conversation.system = text or None
        self._say_system()

    def set(self, text: str) -> None:
        """/set."""
        name, _, value = text.partition(" ")
        if not name:
            self._say(self._tr("/set takes one of: {names}", names=", ".join(PARSERS)))
            return
        self._parameters.set(name, value.strip())
        if name in self._parameters.values:
            self._say(f"{name}={self._parameters.values[name]}")
        else:
            self._say(self._tr("{name} is the server's default.", name=name))

    def model(self, name: str) -> None:
        """/model."""
        if name:
            self._model.use(name)
            self._say(self._tr("Asking {model} from now on.", model=name))
            return
        for offered in self._model.names():
            self._say(f"{'*' if offered == self._model.name else ' '} {offered}")

    def save(self, name: str) -> None:
        """/save."""
        path = Path(name).expanduser() if name else self._file
        if path is None:
            raise ChatError("/save needs the name of a file.")
        if path != self._file and path.exists():
            raise ChatError("{path} exists; choose another name.", path=path)
        save(path, self._conversation, self._model.name, self._parameters.values)
        self._file = path
        self._say(self._tr("Saved to {path}.", path=path))

    def load(self, name: str) -> None:
        """/load."""
        if not name:
            raise ChatError("/load needs the name of a file.")
        path = Path(name).expanduser()
        self._conversation, fields = load(path)
        self._parameters = Parameters({key: value for key, value in fields.items() if key in PARSERS})
        self._file = path
        count = len(self._conversation.messages)
        self._say(self._tr("Loaded {path}: {count} messages.", path=path, count=count))

    def regenerate(self, _: str) -> None:
        """/regenerate."""
        self._require_answer()
        before = self._conversation.take_back()
        try:
            self._answer()
        finally:
            if self._conversation.answer is None:
                self._conversation.set_answer(before)

    def continue_(self, _: str) -> None:
        """/continue."""
        self._require_answer()
        self._answer(begun=self._conversation.answer)

    def exit(self, _: str) -> None:
        """/exit."""
        self._is_over = True

    def _require_answer(self) -> None:
        if self._conversation.answer is None:
            raise ChatError("There is no answer yet.")

    def _answer(self, begun: str | None = None) -> None:
        """Have the last turn answered, or the answer that is `begun` gone on with; keep what is written."""
        had_template = not self._model.continues_text
        written: list[str] = []
        is_whole = False
        try:
            with self._while_answering():
                self._stream(written, is_continued=begun is not None)
            is_whole = True
        except KeyboardInterrupt:
            self._end_line(written)
            self._say(self._tr("Stopped."))
        except ChatError as error:
            self._end_line(written)
            self._say_error(error)
        if text := "".join(written):
            self._conversation.set_answer((begun or "") + text)
        if had_template and self._model.continues_text:
            name = self._model.name
            self._say(self._tr("{model} has no chat template: it continues each text by itself.", model=name))
        if text and not is_whole:
            self._say(self._tr("/continue goes on with the answer."))
        elif is_whole and not text:
            self._say(self._tr("The model ended without a word."))

    def _stream(self, written: list[str], *, is_continued: bool) -> None:
        stream, finish_reason = TextStream(), None
        answer = self._model.answer(
            self._conversation.sent(), self._parameters.values, is_continued=is_continued
        )
        with closing(answer) as parts:  # type: ignore[type-var]  # a generator
            for part in parts:
                written.append(part.text)
                _write(stream.push(part.text))
                finish_reason = part.finish_reason or finish_reason
                self._num_tokens = part.num_tokens if part.num_tokens is not None else self._num_tokens
        _write(stream.flush() + "\n")
        if finish_reason == "length":
            self._say(self._tr("The answer was cut: it reached the limit of tokens. /continue goes on."))

    def _say_system(self) -> None:
        text = self._conversation.system
        self._say(
            self._tr("System prompt: {text}", text=text) if text else self._tr("There is no system prompt.")
        )

    def _say_error(self, error: ChatError) -> None:
        self._say(self._tr("error: {message}", message=self._translate(self._tr.error(error))))

    def _end_line(self, written: list[str]) -> None:
        if written:
            self._say("")

    @staticmethod
    def _say(text: str) -> None:
        """Words of this program, apart from the model's."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


COMMANDS: Mapping[str, Callable[[Repl, str], None]] = {
    "help": Repl.help,
    "show": Repl.show,
    "clear": Repl.clear,
    "system": Repl.system,
    "set": Repl.set,
    "model": Repl.model,
    "save": Repl.save,
    "load": Repl.load,
    "regenerate": Repl.regenerate,
    "continue": Repl.continue_,
    "exit": Repl.exit,
}
HELP = (
    "/regenerate        answer the last question anew",
    "/continue          go on with the last answer",
    "/system TEXT       set the system prompt; without TEXT, remove it",
    "/set NAME VALUE    set a parameter; without VALUE, leave it to the server",
    "/show              show model, system prompt and parameters",
    "/model NAME        ask another model; without NAME, list them",
    "/save FILE         keep the conversation; without FILE, where it was",
    "/load FILE         go on with a saved conversation",
    "/clear             forget the conversation",
    "/exit              end, as Ctrl-D does",
    "Alt-Enter          begin another line; pasted lines stay together",
    "Ctrl-C             stop the answer",
)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
