"""A daemon for the length of one command, where none is running.

Knows nothing about what it is asked. Invariant: it listens on loopback only, and is gone when the
`with` block is, or the whole command.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import click
import httpx

from ondol.cli.language import translator
from ondol.errors import EngineFailed

HOST = "127.0.0.1"
POLL_S = 0.1
PROBE_TIMEOUT_S = 5.0
# The daemon has nothing open any more; what takes longer hangs.
END_TIMEOUT_S = 15.0


class TemporaryDaemon(AbstractContextManager["TemporaryDaemon"]):
    """`ondol serve MODEL` with these further flags, as a child process."""

    def __init__(self, model: str, flags: Sequence[str] = ()) -> None:
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ondol.cli.serve_child", "--lang", translator().language),
                *("serve", model, *flags, "--host", HOST, "--port", str(port), "--log-level", "warning"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C at the terminal is for this process, which may only stop an answer
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_until_ready(self) -> None:
        """Wait while the model is loaded.

        Raises click's Exit with the daemon's own code when it could not serve: it has said why.
        """
        with httpx.Client(base_url=self.url, trust_env=False, timeout=PROBE_TIMEOUT_S) as http:
            while not _is_ready(http):
                try:
                    code = self._process.wait(timeout=POLL_S)
                except subprocess.TimeoutExpired:
                    continue
                if code < 0:
                    raise EngineFailed(f"The temporary daemon was ended by {signal.Signals(-code).name}.")
                raise click.exceptions.Exit(code or EngineFailed.exit_code)

    def close(self) -> None:
        """End the daemon and wait until it is gone."""
        assert self._process.stdin is not None, "the pipe by which the child watches its parent"
        self._process.stdin.close()
        try:
            self._process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
