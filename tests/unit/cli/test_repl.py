import os
import pty
import subprocess
import sys
import termios

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from support.chat_server import ChatServer
from support.daemon import clean_environment, poll

from ondol.cli.asked_model import AskedModel, Sampling
from ondol.cli.daemon_client import DaemonClient
from ondol.cli.repl import Repl

CTRL_C = "\x03"
CTRL_D = "\x04"
LEFT = "\x1b[D"
BACKSPACE = "\x7f"


@pytest.fixture
def server():
    with ChatServer().serve() as running:
        yield running


@pytest.fixture
def talk(server):
    """Type these keys into a conversation, which ends with Ctrl-D."""

    def talk(keys, **options):
        with (
            DaemonClient(server.url) as client,
            create_pipe_input() as keyboard,
            create_app_session(input=keyboard, output=DummyOutput()),
        ):
            keyboard.send_text(keys + CTRL_D)
            Repl(AskedModel(client, "tiny", Sampling()), **options).run()
        return [body.get("messages", body.get("prompt")) for body in server.bodies]

    return talk


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_every_turn_carries_the_conversation_before_it(talk, capsys):
    sent = talk("안녕\r뭐 해?\r")
    assert sent == [[user("안녕")], [user("안녕"), assistant("You said: 안녕"), user("뭐 해?")]]
    assert capsys.readouterr().out == "You said: 안녕\nYou said: 뭐 해?\n"


def test_wide_characters_are_edited_one_by_one(talk):
    # One backspace takes one syllable; one step left stands before it.
    assert talk(f"온돌방{BACKSPACE}{LEFT}{LEFT}새 \r") == [[user("새 온돌")]]


def test_the_system_prompt_can_be_set_and_removed(talk):
    sent = talk("one\r/system 반말로\rtwo\r/clear\r/system\rthree\r", system="Be brief.")
    assert sent[0] == [{"role": "system", "content": "Be brief."}, user("one")]
    assert sent[1][0] == {"role": "system", "content": "반말로"}
    assert sent[2] == [user("three")]


def test_clear_forgets_the_conversation(talk):
    assert talk("one\r/clear\rtwo\r") == [[user("one")], [user("two")]]


def test_exit_ends_and_sends_nothing(talk):
    assert talk("/exit\rnever sent\r") == []


def test_an_unknown_command_is_told_and_not_sent(talk, capsys):
    assert talk("/hlep\r") == []
    assert "/hlep" in capsys.readouterr().err


def test_a_path_is_no_command(talk):
    assert talk("/etc/passwd 파일은 뭐야?\r") == [[user("/etc/passwd 파일은 뭐야?")]]


def test_help_lists_every_command(talk, capsys):
    talk("/help\r")
    shown = capsys.readouterr().err
    assert all(command in shown for command in ("/clear", "/system", "/exit", "Ctrl-C"))


def test_empty_lines_are_not_sent(talk):
    assert talk("\r   \r") == []


def test_ctrl_c_empties_the_line_being_typed(talk):
    assert talk(f"wrong{CTRL_C}right\r") == [[user("right")]]


def test_a_turn_that_failed_is_taken_back(talk, server, capsys):
    def fail_once(body):
        server.answer = lambda body: ["fine"]
        raise ConnectionError

    server.answer = fail_once
    assert talk("first\rsecond\r") == [[user("first")], [user("second")]]
    assert "error: " in capsys.readouterr().err


def test_a_base_model_continues_each_text_by_itself(talk, server, capsys):
    server.has_template = False
    assert talk("Once\rTwice\r") == [[user("Once")], "Once", "Twice"]
    assert capsys.readouterr().err.count("no chat template") == 1


def test_an_answer_at_its_limit_is_told(talk, server, capsys):
    server.finish_reason = "length"
    talk("hi\r")
    assert "limit of tokens" in capsys.readouterr().err


# The pseudo-terminal becomes the one that Ctrl-C is typed on.
ON_ITS_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from ondol.cli.main import main; main()"
)


class Terminal:
    """`ondol chat` on a terminal of its own."""

    def __init__(self, url):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        environment = clean_environment() | {"TERM": "xterm", "LANG": "C.UTF-8", "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_TERMINAL, "chat", "tiny", "--url", url],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.seen = b""

    def read(self):
        try:
            while block := os.read(self.master, 65536):
                self.seen += block
                if b"\x1b[6n" in block:  # prompt_toolkit asks where the cursor is
                    self.type("\x1b[1;1R")
        except (BlockingIOError, OSError):  # nothing yet, or the program has closed the terminal
            pass
        return self.seen.decode("utf-8", "replace")

    def wait_for(self, text):
        poll(self.read, lambda seen: text in seen, timeout_s=30)

    def type(self, keys):
        os.write(self.master, keys.encode())

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_on_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(server):
    server.answer = lambda body: ["시작했습니다", None]
    terminal = Terminal(server.url)
    try:
        terminal.wait_for("\x1b[?2004h")  # the prompt takes keys
        terminal.type("한글 질문\r")
        terminal.wait_for("시작했습니다")
        assert server.is_streaming.wait(10)
        terminal.type(CTRL_C)
        assert server.was_left.wait(10)
        terminal.wait_for("Stopped.")
        server.answer = lambda body: ["두 번째"]
        terminal.type("다시\r")
        terminal.wait_for("두 번째")
        terminal.type(CTRL_D)
        poll(lambda: (terminal.read(), terminal.process.poll())[1], lambda code: code is not None)
        assert terminal.process.returncode == 0
    finally:
        terminal.close()
    assert server.bodies[1]["messages"] == [user("한글 질문"), assistant("시작했습니다"), user("다시")]
