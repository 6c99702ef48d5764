"""The conversation on a terminal of its own, as `ondol chat` and as the program that stands alone."""

import os
import pty
import subprocess
import sys
import termios
import threading
from pathlib import Path

from support.chat_server import echo
from support.daemon import clean_environment, poll

CTRL_C = "\x03"
CTRL_D = "\x04"
STANDALONE = Path(__file__).parents[4] / "clients" / "terminal" / "chat.py"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# The pseudo-terminal becomes the one that Ctrl-C is typed on.
ON_ITS_TERMINAL = (
    "import fcntl, runpy, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); sys.argv = sys.argv[1:]; "
)
ONDOL_CHAT = ON_ITS_TERMINAL + "from ondol.cli.main import main; main()"
CHAT_PY = ON_ITS_TERMINAL + "runpy.run_path(sys.argv[0], run_name='__main__')"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, code, *arguments, home, language="C.UTF-8"):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        environment = clean_environment() | {"TERM": "xterm", "LANG": language, "COLUMNS": "80"}
        # A script's own folder is on the path when Python starts it; `-c` has none.
        environment |= {"ONDOL_HOME": str(home), "PYTHONPATH": str(STANDALONE.parent), "LC_ALL": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def wait_for_prompt(self, number):
        """Wait until keys are taken for the so-manieth line."""
        poll(self.read, lambda seen: seen.count("\x1b[?2004h") >= number, timeout_s=30)

    def wait_for_end(self):
        poll(lambda: (self.read(), self.process.poll())[1], lambda code: code is not None)
        return self.process.returncode

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


def test_on_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(server, tmp_path):
    server.answer = lambda body: ["시작했습니다", None]
    with Terminal(ONDOL_CHAT, "chat", "chat", "tiny", "--url", server.url, home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("한글 질문\r")
        terminal.wait_for("시작했습니다")
        assert server.is_streaming.wait(10)
        terminal.type(CTRL_C)
        assert server.was_left.wait(10)
        terminal.wait_for("Stopped.")
        server.answer = lambda body: ["두 번째"]
        terminal.type("다시\r")
        terminal.wait_for("두 번째")
        terminal.wait_for_prompt(3)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
    assert server.bodies[1]["messages"] == [user("한글 질문"), assistant("시작했습니다"), user("다시")]
    assert "한글 질문" in (tmp_path / "chat_history").read_text(encoding="utf-8")


def test_what_is_typed_during_an_answer_is_the_next_line_and_not_in_its_middle(server, tmp_path):
    has_typed = threading.Event()

    def answer(body):
        server.answer = echo
        yield "처음"
        assert has_typed.wait(10)
        yield "부터 끝까지"

    server.answer = answer
    with Terminal(CHAT_PY, str(STANDALONE), "--base-url", f"{server.url}/v1", home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("하나\r")
        terminal.wait_for("처음")
        terminal.type("둘\r")
        has_typed.set()
        terminal.wait_for("You said: 둘")
        assert "처음부터 끝까지" in terminal.read()
        terminal.wait_for_prompt(3)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0


def test_the_program_that_stands_alone_is_the_same_conversation(server, tmp_path):
    arguments = (str(STANDALONE), "--base-url", f"{server.url}/v1", "--set", "seed=5", "--system", "짧게")
    with Terminal(CHAT_PY, *arguments, home=tmp_path, language="ko_KR.UTF-8") as terminal:
        terminal.wait_for("tiny 모델과 대화합니다")
        terminal.wait_for_prompt(1)
        terminal.type("/show\r")
        terminal.wait_for("시스템 프롬프트: 짧게")
        terminal.type("안녕\r")
        terminal.wait_for("You said: 안녕")
        terminal.type("/exit\r")
        assert terminal.wait_for_end() == 0
    assert (server.bodies[0]["model"], server.bodies[0]["seed"]) == ("tiny", 5)


def test_the_program_that_stands_alone_needs_nothing_of_ondol():
    imports = "import sys; sys.path.insert(0, sys.argv[1]); import chat; print('ondol' in sys.modules)"
    command = [sys.executable, "-c", imports, str(STANDALONE.parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_the_program_that_stands_alone_tells_in_one_line_why_it_cannot_begin(tmp_path):
    url = "http://127.0.0.1:9/v1"
    with Terminal(CHAT_PY, str(STANDALONE), "--base-url", url, home=tmp_path) as terminal:
        assert terminal.wait_for_end() == 1
        assert terminal.read() == f"error: No server answers at {url}, or it has ended.\r\n"
