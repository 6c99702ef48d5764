"""What the page's first load costs: bytes, and the time until a person can type.

Knows nothing about conversations. Invariant: bytes are uncompressed, whatever went over the wire, and what
the page loads only when it first needs it is counted apart.
"""

from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Browser, Page

COMPOSER = "#composer-input"

# Before the page's own code: when the composer is there, and when the last long task before that ended.
WATCH = f"""
window.benchmark = {{ composerMs: null, longTasks: [] }};
new PerformanceObserver((list) => {{
  for (const {{ startTime, duration }} of list.getEntries()) benchmark.longTasks.push([startTime, duration]);
}}).observe({{ type: "longtask", buffered: true }});
new MutationObserver((_, observer) => {{
  if (!document.querySelector("{COMPOSER}")) return;
  benchmark.composerMs = performance.now();
  observer.disconnect();
}}).observe(document, {{ childList: true, subtree: true }});
"""

FILES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter(({ responseStatus }) => responseStatus === 200)
  .map(({ name, decodedBodySize }) => [new URL(name).pathname, decodedBodySize])"""

API = ("/models", "/ready", "/props", "/tokenize", "/v1/")


def load(browser: Browser, url: str) -> dict[str, Any]:
    """One first load in a browser that has nothing of it."""
    with browser.new_context(locale="ko-KR") as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(url)
        page.wait_for_selector(COMPOSER)
        page.wait_for_function("() => performance.now() - benchmark.composerMs > 500")
        watched = page.evaluate("benchmark")
        files = page_files(page)
    before_ready = [begin + length for begin, length in watched["longTasks"] if begin < watched["composerMs"]]
    return {
        "first_load_bytes": sum(size for _, size in files),
        "num_files": len(files),
        "time_to_interactive_ms": round(max([watched["composerMs"], *before_ready]), 1),
        "longest_task_ms": max((length for _, length in watched["longTasks"]), default=0),
        "files": dict(files),
    }


def page_files(page: Page) -> Sequence[tuple[str, int]]:
    """Paths and uncompressed sizes of the page's files that it has loaded so far, largest first."""
    files = {path: size for path, size in page.evaluate(FILES) if not path.startswith(API)}
    return sorted(files.items(), key=lambda file: -file[1])
