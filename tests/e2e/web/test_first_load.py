"""What the page costs before anybody has asked anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAX_FIRST_LOAD_BYTES = 300_000

FILES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .map(({ name, decodedBodySize }) => [new URL(name).pathname, decodedBodySize])"""

# The stream of model events never ends, so the network is never idle.
IS_QUIET = """() => performance.now() - 500 >
  Math.max(...performance.getEntriesByType("resource").map(({ responseEnd }) => responseEnd))"""


def test_the_first_load_is_small_and_leaves_other_code_and_languages_for_later(page):
    page.wait_for_selector("#composer-input")
    page.wait_for_function(IS_QUIET)
    files = dict(page.evaluate(FILES))
    assert "/main.js" in files
    assert not any(path.startswith("/vendor/") for path in files)
    assert [path for path in files if path.startswith("/strings/")] == ["/strings/ko.js"]
    assert sum(files.values()) <= MAX_FIRST_LOAD_BYTES, sorted(files.items(), key=lambda file: -file[1])[:20]


@pytest.mark.slow
def test_the_benchmark_measures_a_page_that_streams(browser):
    """Slow: it loads the page six times and streams into a stored conversation."""
    del browser  # only to be skipped where there is none
    script = ROOT / "benchmarks" / "web" / "run.py"
    command = [sys.executable, str(script), "--runs", "1", "--tokens", "100", "--messages", "40"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=150)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["summary"]["first_load_bytes"] <= MAX_FIRST_LOAD_BYTES
    assert "/vendor/katex.js" in result["lazy_files"]
    (run,) = result["streaming"]["runs"]
    assert 0 < run["main_thread"]["longest_cpu_ms"] <= run["main_thread"]["longest_ms"]
