"""A program on a pseudo-terminal of its own, typed at and read from.

Knows nothing about what the program says. Invariant: the program ends with its `with` block.
"""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from support.daemon import clean_environment, poll

STANDALONE = Path(__file__).parents[2] / "clients" / "terminal" / "chat.py"

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
