"""Fetches a model in a process of its own.

A download blocks in other people's code for minutes; a process can be ended at any moment and takes its
threads, connections and half-written files with it. Knows nothing about loading. The invariant: whichever
way `fetch` ends, the process has ended.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from ondol.errors import SourceUnreachable
from ondol.model_manager.sent_error import SentError

STOP_TIMEOUT_S = 3.0


class FetchedBytes(msgspec.Struct, frozen=True, tag="bytes"):
    """How far the download is."""

    done_bytes: int
    total_bytes: int


FetchMessage = FetchedBytes | SentError


async def fetch(
    model: str, home: Path, *, is_refresh: bool, on_bytes: Callable[[int, int], object] = lambda *_: None
) -> None:
    """Bring a model to this machine; notes and bars go to stderr.

    Args:
        model: a Hub id or a catalog name.
        is_refresh: ask the Hub also for a model that is here, for it may have a newer one.
        on_bytes: hears (done_bytes, total_bytes).

    Raises:
        ModelNotFound, ModelRefused, SourceUnreachable, AccessDenied, DoesNotFit: nothing was registered.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ondol.model_manager.fetch_process",
        str(home),
        "pull" if is_refresh else "resolve",
        model,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A terminal's Ctrl-C goes to the daemon alone, which ends this one.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None, "it was asked for"
        failure = await _listen(process.stdout, on_bytes)
        await process.wait()
    finally:
        await _end(process)
    if failure is not None:
        raise failure.rebuilt()
    if process.returncode != 0:
        raise SourceUnreachable(f"Fetching {model} ended with exit code {process.returncode}; see the log.")


async def _listen(stream: asyncio.StreamReader, on_bytes: Callable[[int, int], object]) -> SentError | None:
    decoder = msgspec.json.Decoder(FetchMessage)
    while line := await stream.readline():
        message = decoder.decode(line)
        if isinstance(message, SentError):
            return message
        on_bytes(message.done_bytes, message.total_bytes)
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """It cleans up and leaves when its stdin closes, else it is killed."""
    assert process.stdin is not None, "it was asked for"
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
