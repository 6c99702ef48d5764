"""`ondol serve` as a process of its own, and ways to watch it from outside.

Knows nothing of the daemon's inside. Invariant: a daemon sees no settings of whoever runs the tests,
and ends with its `with` block, whatever the test did to it.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from openai import AsyncOpenAI, OpenAI
from prometheus_client.parser import text_string_to_metric_families

START_TIMEOUT_S = 120
# One thread, because tests share the machine; a small pool, because a test waits for what it allocates.
SMALL = ("--port", "0", "--threads", "1", "--kv-cache-memory", "4MiB")
IDLE = {"ondol_requests_running": 0, "ondol_requests_waiting": 0, "ondol_kv_blocks_used": 0}

Value = TypeVar("Value")


def poll(read: Callable[[], Value], is_right: Callable[[Value], Any], timeout_s: float = 10) -> Value:
    """The first value that is right; fails with the last one when none was in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_right(value := read()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"still {value!r} after {timeout_s} s")
        time.sleep(0.02)
    return value


def clean_environment() -> dict[str, str]:
    """This process's environment without settings for Ondol."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("ONDOL_")}
    return kept | {"XDG_CONFIG_HOME": os.path.join(os.devnull, "no-config")}


class Daemon:
    """A running `ondol serve`; later arguments win over those of `SMALL`."""

    def __init__(self, *arguments: str) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self.url = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ondol", "serve", *SMALL, *arguments],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """The first line of stderr from here on that matches; fails when the daemon ends without one."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (line := self.lines.get(timeout=max(0.01, deadline_s - time.monotonic()))) is not None:
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the daemon ended without a line like {pattern!r}: {self.seen}")

    def wait_until_serving(self) -> "Daemon":
        """Sets `url`."""
        self.url = self.wait_for_line(r"serving \S+ on (http://127\.0\.0\.1:\d+)").group(1)
        poll(lambda: self.get("ready").status_code, lambda status: status == 200)
        return self

    def wait_until_draining(self) -> None:
        """A signal is acted upon at the server's next tick; until then it may still be ready."""
        poll(lambda: self.get("ready"), lambda answer: answer.json()["status"] == "draining")

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}/{path}", headers=headers)

    def openai(self, api_key: str = "any", **options: Any) -> OpenAI:
        """OpenAI's client, which must not hide refusals by trying again."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, **options)

    def async_openai(self, api_key: str = "any", **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, **options)

    def metrics(self, api_key: str = "any") -> dict[str, float]:
        """/metrics, samples of one name added up over their labels."""
        answer = self.get("metrics", authorization=f"Bearer {api_key}")
        answer.raise_for_status()
        sums: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                sums[sample.name] += sample.value
        return dict(sums)

    def wait_for_metrics(
        self, expected: Mapping[str, float], *, api_key: str = "any", timeout_s: float = 10
    ) -> dict[str, float]:
        """All metrics, once the named ones have these values."""
        return poll(
            lambda: self.metrics(api_key),
            lambda metrics: all(metrics.get(name) == value for name, value in expected.items()),
            timeout_s,
        )

    def num_aborted(self) -> float:
        """Requests that ended because their client had left; the daemon asks for no key."""
        pattern = r'^ondol_requests_total\{.*finish_reason="abort".*\} (\S+)$'
        return sum(map(float, re.findall(pattern, self.get("metrics").text, re.M)))

    def engine_ids(self) -> list[int]:
        """The process ids of the daemon's engines."""
        process_id = self.process.pid
        with open(f"/proc/{process_id}/task/{process_id}/children", encoding="ascii") as children:
            return [int(word) for word in children.read().split()]

    def send_signal(self, which: signal.Signals) -> None:
        self.process.send_signal(which)

    def end(self, timeout_s: float = START_TIMEOUT_S) -> tuple[int, str]:
        """Exit code and what stdout held; lines that nobody waited for are added to `seen`."""
        code = self.process.wait(timeout=timeout_s)
        self._reader.join()
        while (line := self.lines.get_nowait()) is not None:
            self.seen.append(line)
        with self.process.stdout as stdout:
            return code, stdout.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


def has_ended(process_id: int) -> bool:
    """Whether a process is gone; one that only waits to be reaped is."""
    try:
        with open(f"/proc/{process_id}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
