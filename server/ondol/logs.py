"""Logging: one line per event on stderr, for our own loggers and uvicorn's.

Knows nothing about what is logged. Invariant: no API key and no prompt reaches the log: libraries that
would print headers and bodies at lower levels stay at WARNING.
"""

import logging
from typing import TextIO


class LineFormatter(logging.Formatter):
    """Time, level, logger and message on one line; only a traceback may follow on more lines."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:7} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own spelling
        """The line; line breaks inside a message are shown as escapes, so that no caller can forge one."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every event to `stream` (default: stderr), our own from `level` upwards.

    Replaces what an earlier call set. `level` is "debug", "info", "warning" or "error".
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ondol").setLevel(level.upper())
    # What uvicorn tells at info, our own lines tell better.
    logging.getLogger("uvicorn").setLevel(level.upper() if level in ("debug", "error") else logging.WARNING)
