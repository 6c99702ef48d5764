"""Many streams against one daemon at once, each read to its end.

Knows nothing about why a stream ends. Invariant: a connection that is cut is an exception, so a list of
events is always that of a complete answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from support.daemon import Daemon
from support.served_models import ENDLESS

DONE = "[DONE]"


def endless(**changes: Any) -> dict[str, Any]:
    """The body of a text completion that does not end by itself."""
    body = {"model": "tiny", "prompt": "hi", "temperature": 0, "max_tokens": ENDLESS, "ignore_eos": True}
    return body | changes


@asynccontextmanager
async def open_streams(
    daemon: Daemon, num_streams: int, body: dict[str, Any]
) -> AsyncIterator[list[asyncio.Task[list[str]]]]:
    """Tasks that read one stream each, for the block's length; each returns the events' data.

    All have begun to answer when the block is entered.
    """
    async with httpx.AsyncClient(timeout=60) as client:
        begun = [asyncio.Event() for _ in range(num_streams)]
        readers = [asyncio.create_task(_read(client, daemon.url, body, event)) for event in begun]
        try:
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), 30)
            yield readers
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(client: httpx.AsyncClient, url: str, body: dict[str, Any], begun: asyncio.Event) -> list[str]:
    events: list[str] = []
    request = {**body, "stream": True}
    async with client.stream("POST", f"{url}/v1/completions", json=request) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
                begun.set()
    return events


def error_of(events: list[str]) -> dict[str, Any]:
    """The error that ended a stream, which must be its last event and have OpenAI's shape."""
    assert DONE not in events
    assert not any("error" in json.loads(event) for event in events[:-1])
    error = json.loads(events[-1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
