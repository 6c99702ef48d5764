"""The process that fetches one model for a daemon: `python -m ondol.model_manager.fetch_process`.

Arguments: the store's home, "pull" or "resolve", and the model. Says on stdout, in lines of JSON, how far it
is and how it failed. Knows nothing about who listens. The invariant: it ends when its stdin does, so that no
way of ending the daemon leaves a download behind.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from ondol.errors import OndolError
from ondol.model_manager.disk_errors import disk_errors_told
from ondol.model_manager.fetching import FetchedBytes, FetchMessage
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import pull, resolve
from ondol.model_manager.sent_error import SentError

INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT
REPORT_INTERVAL_S = 0.2


def main() -> int:
    """Entry point of the process; its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home, action, model = sys.argv[1:]
    progress = Progress(on_bytes=BytesReport())
    try:
        # Its first act may be to interrupt this thread.
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
        with disk_errors_told():
            (pull if action == "pull" else resolve)(model, Path(home), progress)
    except OndolError as error:
        _say(SentError.of(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT_CODE
    return 0


class BytesReport:
    """Says how far a download is, not more often than somebody can read; safe in several threads."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._lock = threading.Lock()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Say it if the last time is long enough ago, or this is the end."""
        with self._lock:
            now_s = time.monotonic()
            if now_s >= self._next_s or done_bytes >= total_bytes:
                self._next_s = now_s + REPORT_INTERVAL_S
                _say(FetchedBytes(done_bytes, total_bytes))


def _end_with_stdin() -> None:
    # Not sys.stdin: a thread that holds its lock would disturb the interpreter's end.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _say(message: FetchMessage) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
