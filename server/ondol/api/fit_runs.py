"""Runs of `ondol fit`, which reads a model's shapes, in processes of their own.

The answer takes torch and the modeling code, which this process never imports. Knows nothing about
HTTP. Invariant: at most `MAX_RUNS` processes at a time, and none outlives the request for it.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence

import anyio
import msgspec

from ondol.errors import (
    AccessDenied,
    ConfigError,
    DeviceUnusable,
    DoesNotFit,
    InvalidRequest,
    ModelNotFound,
    ModelRefused,
    OndolError,
    QueueFull,
    SourceUnreachable,
)

MAX_RUNS = 2
# The headers of a large model come from the Hub in some hundred requests at most.
TIMEOUT_S = 120.0
RETRY_AFTER_S = 5
ERROR_PREFIX = "ondol: error: "

# By exit code; what is not listed is our own bug.
_ERRORS: dict[int, Callable[[str], OndolError]] = {
    ConfigError.exit_code: InvalidRequest,
    AccessDenied.exit_code: AccessDenied,
    DoesNotFit.exit_code: DoesNotFit,
    DeviceUnusable.exit_code: DeviceUnusable,
    ModelRefused.exit_code: ModelRefused,
    SourceUnreachable.exit_code: SourceUnreachable,
}


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
            OndolError: the error that `ondol fit` ended with.
        """
        if self._num_runs >= MAX_RUNS:
            raise QueueFull(RETRY_AFTER_S)
        # English, because the error's line is read here; "--", because a name may look like a flag.
        command = [sys.executable, "-m", "ondol", "--lang", "en", "fit", "--json"]
        command += [*self._flags, *arguments, "--", model]
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
        raise _error_of(model, ended.returncode, ended.stderr.decode("utf-8", "replace"))


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _error_of(model: str, exit_code: int, stderr: str) -> OndolError:
    last_line = stderr.strip().rpartition("\n")[2]
    if exit_code == ModelNotFound.exit_code:
        return ModelNotFound(model)
    if exit_code in _ERRORS and last_line.startswith(ERROR_PREFIX):
        return _ERRORS[exit_code](last_line.removeprefix(ERROR_PREFIX))
    return OndolError(f"`ondol fit` ended with exit code {exit_code}: {last_line}")
