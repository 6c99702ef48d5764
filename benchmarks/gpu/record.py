"""Where figures go as they come: one JSON line each, in a file that outlives a part that is cut off.

Knows nothing about what is measured. Invariant: a line is on the disk before the next figure is measured.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# A part begins nothing new a while before its process is ended, so that what it measured last is complete.
PART_LIMIT_S = 470.0
LAST_S = 70.0


class Recorder:
    """Writes the lines of one part of one run.

    Args:
        file: appended to.
        run_id: tells the lines of one run from those of others.
        part: the part's name.
        limit_s: when its process is ended.
    """

    def __init__(self, file: Path, run_id: str, part: str, limit_s: float = PART_LIMIT_S) -> None:
        self._file = file
        self._begins_until_s = limit_s - LAST_S
        self._origin = {"run": run_id, "part": part}
        self._started_s = time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether the part should begin nothing new."""
        return time.monotonic() - self._started_s > self._begins_until_s

    def figure(self, name: str, **values: Any) -> None:  # noqa: ANN401 (any JSON value)
        """Append a figure and show it on stderr."""
        self._write({"figure": name, **values})

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        """Measure one thing if there is time; what stops it is recorded, and the next one begins."""
        if self.is_late:
            self.skip(what, "no time was left in this part")
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - nothing is hidden: it is recorded as failed, and shown
            traceback.print_exc()
            self.fail(what, f"{type(error).__name__}: {error}"[:500])

    def skip(self, what: str, reason: str) -> None:
        """Append that something was not measured, and why."""
        self._write({"figure": "skipped", "what": what, "reason": reason})

    def fail(self, what: str, reason: str) -> None:
        """Append that something went wrong."""
        self._write({"figure": "failed", "what": what, "reason": reason})

    def _write(self, values: Mapping[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({**self._origin, **values}) + "\n")
        text = "  ".join(f"{name}={_short(value)}" for name, value in values.items() if name != "figure")
        sys.stderr.write(f"[{self._origin['part']}] {values['figure']}: {text}\n")
        sys.stderr.flush()


def read_run(file: Path, run_id: str) -> list[dict[str, Any]]:
    """The lines of one run, in the order they were written."""
    return [line for line in _read(file) if line.get("run") == run_id]


def newest_run(file: Path) -> tuple[str | None, frozenset[str]]:
    """The run that the file's last line belongs to, None of an empty file, and its parts that have ended."""
    lines = _read(file)
    run_id = lines[-1]["run"] if lines else None
    ended = (line["part"] for line in lines if line["run"] == run_id and line["figure"] == "part")
    return run_id, frozenset(ended)


def _read(file: Path) -> list[dict[str, Any]]:
    """Every line; one that was cut off is left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
