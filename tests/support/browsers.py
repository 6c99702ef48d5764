"""Which browser of this machine shows the web chat.

Knows nothing about pages. Invariant: a browser that is found is a Chromium.
"""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser_path() -> str | None:
    """The program of a Chromium, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)
