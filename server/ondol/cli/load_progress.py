"""Lines on stderr about what a daemon does with its models while a command waits.

Knows nothing about the command. Invariant: it only decorates: without it, or with a daemon that
stops telling, the command does the same.
"""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from ondol.cli.daemon_client import DaemonClient, JsonObject
from ondol.cli.language import tr
from ondol.cli.ps import progress_share, status_text
from ondol.errors import OndolError

PROGRESS_STEP = 0.1


class ProgressLines:
    """Turns the events of /models/sse into lines worth a person's while."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        self._last_line = ""

    def line(self, event: JsonObject) -> str | None:
        """The line for an event; None where little has changed since the last one."""
        name, data = event["model"], event.get("data") or {}
        if event["event"] == "download_progress":
            status: JsonObject = {"value": "downloading", "progress": data}
        elif event["event"] == "model_status":
            status = {**data, "value": data["status"]}
        else:
            return None
        stage = str((status.get("progress") or {}).get("current", status["value"]))
        share = progress_share(status.get("progress")) or 0.0
        last_stage, last_share = self._last.get(name, ("", 0.0))
        if stage == last_stage and share < last_share + PROGRESS_STEP:
            return None
        self._last[name] = (stage, share)
        line = f"{name}: {status_text(status)}"
        if stage == "waiting":
            line = tr("{name}: waiting for other models to give back memory", name=name)
        is_news = line != self._last_line
        self._last_line = line
        return line if is_news else None


@contextmanager
def shown_progress(daemon: DaemonClient) -> Iterator[None]:
    """Print progress to stderr inside the block."""
    is_watching, is_over = threading.Event(), threading.Event()
    lines = ProgressLines()

    def watch() -> None:
        try:
            # Whatever is wrong, the command hears of it by its own request.
            with suppress(OndolError):
                for event in daemon.events("/models/sse", on_open=is_watching.set):
                    if is_over.is_set():
                        return
                    if line := lines.line(event):
                        click.echo(line, err=True)
        finally:
            is_watching.set()

    # A copy of the context, for the language is in it; a daemon thread, for the next event may be far.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(watch,), daemon=True).start()
    is_watching.wait()
    try:
        yield
    finally:
        is_over.set()
