"""The engine's end of the socket: it follows the other one."""

import socket
import subprocess
import sys

import pytest

WAITING = """
import socket, sys
from ondol.engine.channel import Channel

connection = socket.socket(fileno=int(sys.argv[1]))
Channel(connection).start_reading()
connection.send(b"x")
sys.stdin.read()
"""


@pytest.mark.parametrize("is_read", [True, False])
def test_the_process_ends_with_its_peer_whether_or_not_that_has_read_everything(is_read):
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", WAITING, str(theirs.fileno())]
    with (
        theirs,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE) as process,
    ):
        theirs.close()
        assert ours.recv(1, 0 if is_read else socket.MSG_PEEK) == b"x"
        ours.close()
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
