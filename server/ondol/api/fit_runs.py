"""Runs of `ondol fit`, which reads a model's shapes, in processes of their own.

The answer takes torch and the modeling code, which this process never imports. Knows nothing about
HTTP. Invariant: at most `MAX_RUNS` processes at a time, and none outlives the request for it.
"""

import subprocess
import sys
from collections.abc import Sequence

import anyio
import msgspec

from ondol.errors import OndolError, QueueFull, SourceUnreachable
from ondol.model_manager.sent_error import SentError

MAX_RUNS = 2
# The headers of a large model come from the Hub in some hundred requests at most.
TIMEOUT_S = 120.0
RETRY_AFTER_S = 5


class FitRuns:
    """Runs of `ondol fit`; belongs to one event loop."""

    def __init__(self, flags: Sequence[str]) -> None:
        """`flags` are given to every run."""
        self._flags = tuple(flags)
        self._num_runs = 0

    async def report(self, model: str, arguments: Sequence[str]) -> bytes:
        """What `ondol fit MODEL --json` prints.

        Raises:
            QueueFull: enough runs are underway.
            OndolError: the error that `ondol fit` ended with, its class and data as they were there.
        """
        if self._num_runs >= MAX_RUNS:
            raise QueueFull(RETRY_AFTER_S)
        command = [sys.executable, "-m", "ondol.cli.fit_child", *self._flags, *arguments]
        command += ["--", model]  # a name may look like a flag
        self._num_runs += 1
        try:
            with anyio.fail_after(TIMEOUT_S):
                ended = await anyio.run_process(command, check=False, stdin=subprocess.DEVNULL)
        except TimeoutError:
            raise SourceUnreachable(f"Reading about {model} took longer than {TIMEOUT_S:g} s.") from None
        finally:
            self._num_runs -= 1
        # A model that fits nowhere ends with an exit code as well, after its table.
        if _is_json(ended.stdout):
            return ended.stdout
        raise _error_of(ended.returncode, ended.stderr.decode("utf-8", "replace"))


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _error_of(exit_code: int, stderr: str) -> OndolError:
    last_line = stderr.strip().rpartition("\n")[2]
    try:
        return msgspec.json.decode(last_line, type=SentError).rebuilt()
    except msgspec.DecodeError:
        return OndolError(f"`ondol fit` ended with exit code {exit_code}: {last_line}")
