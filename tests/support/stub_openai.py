"""A small OpenAI-like server on loopback whose every byte is under the test's control.

It speaks HTTP/1.1 with chunked bodies over a real socket. A script answers POST requests: it gets
the request's body and a Reply to write to.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

Script = Callable[[dict[str, Any], "Reply"], Awaitable[None]]


class Reply:
    """One response in the making."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def start(self, status: int = 200, content_type: str = "text/event-stream") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        self._writer.write(head.encode())
        await self._writer.drain()

    async def send(self, block: bytes) -> None:
        self._writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        await self._writer.drain()

    async def event(self, value: Any) -> None:
        await self.send(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def error(self, status: int, message: str) -> None:
        await self.start(status, "application/json")
        await self.send(json.dumps({"error": {"message": message}}).encode())
        await self.end()

    def cut(self) -> None:
        """Drop the connection in the middle of the body."""
        self._writer.transport.abort()


def num_words(body: dict[str, Any]) -> int:
    """Words of the prompt, with two more for the template in chats."""
    if "messages" in body:
        return len(body["messages"][0]["content"].split()) + 2
    return len(body["prompt"].split())


def usage_of(body: dict[str, Any], num_output: int | None = None, num_cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": num_words(body),
        "completion_tokens": body["max_tokens"] if num_output is None else num_output,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }


def piece(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


async def answer_exactly(body: dict[str, Any], reply: Reply) -> None:
    """One chunk for each token that was asked for, then usage and [DONE]."""
    await reply.start()
    await reply.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    for _ in range(body["max_tokens"]):
        await reply.event(piece("word "))
    await reply.event(piece("", "length"))
    await reply.event({"choices": [], "usage": usage_of(body)})
    await reply.send(b"data: [DONE]\n\n")
    await reply.end()


class StubServer:
    """Answers GET /v1/models itself and hands POST requests to the script."""

    def __init__(self, script: Script, models: list[dict[str, Any]] | None = None) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._script = script
        self._models = [{"id": "stub", "source": "scripted"}] if models is None else models
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["StubServer"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()

    @contextlib.contextmanager
    def running_in_thread(self) -> Iterator["StubServer"]:
        """For tests of commands, which run an event loop of their own."""
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()
        is_up = threading.Event()

        async def serve() -> None:
            async with self.running():
                is_up.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            assert is_up.wait(10)
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        self.paths.append(path)
        self.headers.append(headers)
        reply = Reply(writer)
        if method == "GET":
            await reply.start(content_type="application/json")
            await reply.send(json.dumps({"object": "list", "data": self._models}).encode())
            await reply.end()
            return
        body = json.loads(content)
        self.bodies.append(body)
        await self._script(body, reply)
