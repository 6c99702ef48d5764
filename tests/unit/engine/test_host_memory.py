import ctypes
import sys
from pathlib import Path

import pytest

from ondol.engine.host_memory import return_freed_memory

CHUNK_BYTES = 1024
NUM_CHUNKS = 64 * 1024


def anonymous_bytes():
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kilobytes) * 1024


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
def test_freed_memory_between_memory_in_use_leaves_the_process():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    chunks = [libc.malloc(CHUNK_BYTES) for _ in range(NUM_CHUNKS)]
    for chunk in chunks:
        ctypes.memset(chunk, 1, CHUNK_BYTES)
    for chunk in chunks[:-1]:  # the last one keeps the heap from shrinking by itself
        libc.free(chunk)
    before_bytes = anonymous_bytes()
    return_freed_memory()
    assert before_bytes - anonymous_bytes() > NUM_CHUNKS * CHUNK_BYTES // 2
    libc.free(chunks[-1])
