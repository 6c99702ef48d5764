"""Gives memory that was freed back to the operating system.

Knows nothing about what was freed.
"""

import contextlib
import ctypes
import sys


def return_freed_memory() -> None:
    """Let glibc return free pages of its heap, which keep a load's scratch resident; elsewhere nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has no such call, and keeps no such pages
            ctypes.CDLL(None).malloc_trim(0)
