"""The real app around a fake model, in memory or on a live loopback server."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from openai import AsyncOpenAI
from support.api_settings import api_config
from support.fake_model import FakeEngine, FakeManager, FakeModel

from ondol.api.app import create_app
from ondol.api.lifecycle import Lifecycle
from ondol.api.server import OndolServer, bind_socket
from ondol.metrics import Metrics


@dataclass
class FrontDoor:
    """One app and everything behind it."""

    app: FastAPI
    model: FakeModel
    manager: FakeManager
    metrics: Metrics
    lifecycle: Lifecycle

    @property
    def engine(self) -> FakeEngine:
        return self.model.engine

    def client(self, **headers: str) -> httpx.AsyncClient:
        """In memory; buffers whole answers, so not for streams."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    @property
    def is_idle(self) -> bool:
        """Nothing is held for any request."""
        return self.manager.num_leases == 0 and self.lifecycle.num_open == 0 and self.engine.num_open == 0


def open_front_door(
    model: FakeModel, *, shelf: Sequence[FakeModel] = (), is_ready: bool = True, **config: object
) -> FrontDoor:
    """`shelf` holds models that can be loaded."""
    manager = FakeManager(model, shelf=shelf)
    metrics = Metrics(lambda: [(served.name, served.engine.stats) for served in manager.served()])
    lifecycle = Lifecycle()
    if is_ready:
        lifecycle.mark_ready()
    app = create_app(manager, config=api_config(**config), metrics=metrics, lifecycle=lifecycle)
    return FrontDoor(app, model, manager, metrics, lifecycle)


@dataclass
class LiveServer:
    url: str
    server: OndolServer
    done: asyncio.Task[None]

    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)


@asynccontextmanager
async def live_server(door: FrontDoor, *, shutdown_grace_s: float = 30.0) -> AsyncIterator[LiveServer]:
    """The app on a real socket; ends at once when the block does."""
    listener = bind_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = OndolServer(door.app, door.lifecycle, shutdown_grace_s)
    done = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield LiveServer(f"http://127.0.0.1:{port}", server, done)
    finally:
        door.lifecycle.cut()
        server.should_exit = True
        await done


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def is_openai_error(answer: httpx.Response) -> bool:
    body = answer.json()
    error = body["error"]
    return (
        set(body) == {"error"}
        and set(error) == {"message", "type", "param", "code"}
        and bool(error["message"])
    )
