"""What a page's main thread did, from Chromium's own trace.

Knows nothing about what the page did it for. Invariant: times are in milliseconds; CPU time is what the
thread computed, wall time also what it waited for a core.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from playwright.sync_api import Browser, Page

CATEGORIES = ["toplevel", "disabled-by-default-lighthouse"]
TASK = "ThreadControllerImpl::RunTask"
MAIN_THREAD = "CrRendererMain"
LONG_TASK_MS = 50.0


@dataclass
class Tasks:
    """Tasks of the busiest main thread.

    Attributes:
        wall_ms: how long each took.
        cpu_ms: how much each computed, in the same order.
    """

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | int]:
        """The figures that a run reports."""
        return {
            "num_tasks": len(self.wall_ms),
            "longest_ms": round(max(self.wall_ms), 2),
            "longest_cpu_ms": round(max(self.cpu_ms), 2),
            "p99_ms": round(quantiles(self.wall_ms, n=100)[98], 2),
            "num_long_tasks": sum(time_ms > LONG_TASK_MS for time_ms in self.wall_ms),
            "busy_cpu_ms": round(sum(self.cpu_ms), 1),
        }


@contextmanager
def traced(browser: Browser, page: Page) -> Iterator[Tasks]:
    """Fills the tasks when the block has ended."""
    tasks = Tasks()
    browser.start_tracing(page=page, categories=CATEGORIES)
    try:
        yield tasks
    finally:
        _read(json.loads(browser.stop_tracing()), tasks)


def _read(trace: dict[str, Any], tasks: Tasks) -> None:
    events = trace["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"] == MAIN_THREAD
    }
    by_thread: dict[tuple[int, int], list[dict[str, Any]]] = {thread: [] for thread in threads}
    for event in events:
        thread = (event["pid"], event["tid"])
        if event.get("ph") == "X" and event["name"] == TASK and thread in by_thread:
            by_thread[thread].append(event)
    busiest = max(by_thread.values(), key=lambda found: sum(event.get("tdur", 0) for event in found))
    tasks.wall_ms = [event["dur"] / 1000 for event in busiest]
    tasks.cpu_ms = [event.get("tdur", 0) / 1000 for event in busiest]
