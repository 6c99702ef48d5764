"""Measures the web chat in Chromium: bytes of the first load, time until typing, longest main-thread task.

    python benchmarks/web/run.py [--runs 3] [--messages 2000] [--tokens 500] [--tokens-per-s 50] [--out FILE]

The page is the daemon's, the answers are scripted. A table goes to stderr; the last line of stdout is one
JSON object. Targets: 300 kB at the first load, no task over 50 ms while an answer streams.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The scripted daemon is what the page's tests run against.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from playwright.sync_api import Browser, sync_playwright  # noqa: E402 - the path has to be there first
from support.stub_daemon import StubDaemon  # noqa: E402

from benchmarks.web.page_load import load  # noqa: E402
from benchmarks.web.streaming import StreamingRun  # noqa: E402
from ondol.bench.provenance import load_average, provenance  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FIRST_LOAD_LIMIT_BYTES = 300_000
TASK_LIMIT_MS = 50.0


def main() -> int:
    """Measure, print, write; exit code 0."""
    options = _parse()
    with StubDaemon().running() as stub, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_browser_path(), args=["--no-sandbox"])
        origin = provenance(["playwright"])
        origin["versions"]["chromium"] = browser.version
        result = {**origin, "workload": vars(options) | {"out": None}, **_measure(browser, stub, options)}
        browser.close()
    result["load_average_after"] = load_average()
    _print(result)
    line = json.dumps(result, ensure_ascii=False)
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


def _measure(browser: Browser, stub: StubDaemon, options: argparse.Namespace) -> dict[str, Any]:
    streaming = StreamingRun(options.messages, options.tokens, options.tokens_per_s)
    # A warm-up: the browser's own first start is not the page's.
    load(browser, stub.url)
    loads = [load(browser, stub.url) for _ in range(options.runs)]
    streams = [streaming.measure(browser, stub) for _ in range(options.runs)]
    first_files = loads[0].pop("files")
    for one in loads[1:]:
        one.pop("files")
    lazy = {path: size for path, size in streams[0]["files"].items() if path not in first_files}
    for one in streams:
        one.pop("files")
    return {
        "first_load": {"runs": loads, "files": first_files},
        "lazy_bytes": sum(lazy.values()),
        "lazy_files": lazy,
        "streaming": {"runs": streams},
        "summary": {
            "first_load_bytes": loads[0]["first_load_bytes"],
            "time_to_interactive_ms": _spread([one["time_to_interactive_ms"] for one in loads]),
            "longest_task_ms": _spread([one["main_thread"]["longest_ms"] for one in streams]),
            "longest_task_cpu_ms": _spread([one["main_thread"]["longest_cpu_ms"] for one in streams]),
            "calibration_ms": _spread([one["calibration_ms"]["before"] for one in streams]),
        },
        "targets": {"first_load_bytes": FIRST_LOAD_LIMIT_BYTES, "longest_task_ms": TASK_LIMIT_MS},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "most": max(values)}


def _print(result: dict[str, Any]) -> None:
    summary = result["summary"]
    rows = [("first load, bytes", f"{summary['first_load_bytes']:,} of {FIRST_LOAD_LIMIT_BYTES:,}")]
    rows.append(("loaded when needed, bytes", f"{result['lazy_bytes']:,}"))
    for name, key in (
        ("time to interactive, ms", "time_to_interactive_ms"),
        (f"longest task while streaming, ms (target {TASK_LIMIT_MS:.0f})", "longest_task_ms"),
        ("  of that the most computed, ms", "longest_task_cpu_ms"),
        ("calibration loop, ms", "calibration_ms"),
    ):
        spread = summary[key]
        rows.append((name, f"{spread['median']:.1f} ({spread['least']:.1f} to {spread['most']:.1f})"))
    rows.append(
        ("load average before, after", f"{result['machine']['load_average']}, {result['load_average_after']}")
    )
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}", file=sys.stderr)


def _browser_path() -> str:
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        sys.exit("No Chromium on the PATH; `make browser-setup` installs one where it can.")
    return path


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--tokens-per-s", type=float, default=50.0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
