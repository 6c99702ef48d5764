"""A daemon without a model: the real page and the API's shapes over real HTTP, every answer scripted.

Knows nothing about browsers. Invariant: it says nothing that no script said; what it was asked is kept.
"""

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.daemon import poll

from ondol.api.server import bind_socket
from ondol.api.web_page import WebPage

CONTEXT_LENGTH = 4096
HOLD_TIMEOUT_S = 60


@dataclass
class Answer:
    """One streamed answer.

    Attributes:
        pieces: the texts of its chunks, one token each.
        tokens_per_s: their pace; None sends them at once.
        queued: places in the queue, told before the first piece.
        hold_at: before this piece the stream waits until `resume` is set.
        cut_at: before this piece the connection breaks.
        error: an error event in OpenAI's shape instead of the rest, before piece `cut_at` or at the end.
        refusal: status and error object; nothing is streamed then.
    """

    pieces: tuple[str, ...] = ("안녕", "하세요", ".")
    tokens_per_s: float | None = None
    queued: tuple[int, ...] = ()
    hold_at: int | None = None
    cut_at: int | None = None
    error: dict[str, Any] | None = None
    refusal: tuple[int, dict[str, Any]] | None = None
    finish_reason: str = "stop"
    resume: threading.Event = field(default_factory=threading.Event)


def error_object(message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"message": message, "type": "server_error", "param": param, "code": code}


def model_entry(name: str, status: str = "loaded", **status_fields: Any) -> dict[str, Any]:
    """One model in the answer of GET /models."""
    return {
        "id": name,
        "object": "model",
        "owned_by": "ondol",
        "in_cache": True,
        "status": {"value": status, **status_fields},
        "source": {"kind": "folder"},
        "num_streams": 0,
        "expires_at": None,
        "pinned": False,
        "memory": None,
        "quantization": None,
        "device": "cpu",
        "max_model_len": CONTEXT_LENGTH if status == "loaded" else None,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
    }


class StubDaemon:
    """What tests read and set while it runs.

    Attributes:
        bodies: what chats asked for, in order.
        orders: path and body of POST /models/load and /models/unload, in order.
        answers: the next chats' answers; without one, `Answer()`.
        num_aborted: chats whose client left before the end.
        num_ended: chats whose answer was sent to its end.
        api_key: what clients must send, or None.
        phase: what /ready says.
        models: entries of GET /models.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Answer] = []
        self.num_aborted = 0
        self.num_ended = 0
        self.api_key: str | None = None
        self.phase = "ready"
        self.models = [model_entry("stub")]
        self.port = 0
        self._given: list[Answer] = []
        self._watchers: list[asyncio.Queue[dict[str, Any]]] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["StubDaemon"]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        listener = bind_socket("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = server = uvicorn.Server(config)
        self._loop = loop = asyncio.new_event_loop()

        def run() -> None:
            loop.run_until_complete(server.serve(sockets=[listener]))
            # As the end of a process does; clients of a loop that is only closed would wait for ever.
            for connection in tuple(server.server_state.connections):
                connection.transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        poll(lambda: server.started, bool)

    def stop(self) -> None:
        """Be gone at once: open streams break."""
        if self._server is None:
            return
        self._server.force_exit = self._server.should_exit = True
        for answer in self._given:
            answer.resume.set()
        self._thread.join(10)
        self._watchers.clear()
        self._server = None

    def publish(self, model: str, event: str, **data: Any) -> None:
        """Tell those who watch /models/sse."""
        poll(lambda: self._watchers, bool)
        for watcher in tuple(self._watchers):
            self._loop.call_soon_threadsafe(
                watcher.put_nowait, {"model": model, "event": event, "data": data}
            )

    def _app(self) -> Starlette:
        routes = [
            Route("/ready", self._ready),
            Route("/models", self._guarded(self._list_models)),
            Route("/v1/models", self._guarded(self._list_models)),
            Route("/models/fit", self._guarded(self._fit)),
            Route("/models/sse", self._guarded(self._watch_models)),
            Route("/models/load", self._guarded(self._order), methods=["POST"]),
            Route("/models/unload", self._guarded(self._order), methods=["POST"]),
            Route("/props", self._guarded(self._props)),
            Route("/tokenize", self._guarded(self._tokenize), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            WebPage(),
        ]
        return Starlette(routes=routes)

    def _guarded(self, endpoint: Any) -> Any:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization")
            if self.api_key is not None and given != f"Bearer {self.api_key}":
                error = error_object("The API key is not valid.", "invalid_api_key")
                return JSONResponse({"error": error}, 401)
            return await endpoint(request)

        return guarded

    async def _ready(self, request: Request) -> Response:
        return JSONResponse({"status": self.phase}, 200 if self.phase == "ready" else 503)

    async def _list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.models})

    async def _fit(self, request: Request) -> Response:
        form = {"form": "nf4", "total_bytes": 6 * 2**30}
        report = {"device": {"usable_bytes": 10 * 2**30}, "forms": [form], "best_form": "nf4"}
        return JSONResponse(report)

    async def _props(self, request: Request) -> Response:
        sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.0, "repetition_penalty": 1.0}
        penalties = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        template = {"has_template": True, "takes_system": True, "tools": None, "thinking_argument": None}
        props = {
            "id": request.query_params.get("model", "stub"),
            "default_generation_settings": sampling | penalties,
            "max_model_len": CONTEXT_LENGTH,
            "vocab_size": 1000,
            "dtype": "float32",
            "quantization": None,
            "chat_template": template,
            "object": "model.props",
        }
        return JSONResponse(props)

    async def _tokenize(self, request: Request) -> Response:
        text = (await request.json())["prompt"]
        tokens = list(range((len(text) + 1) // 2))
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": CONTEXT_LENGTH})

    async def _order(self, request: Request) -> Response:
        body = await request.json()
        self.orders.append((request.url.path, body))
        return JSONResponse({"model": body["model"], "success": True})

    async def _watch_models(self, request: Request) -> Response:
        watcher: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._watchers.append(watcher)

        async def told() -> AsyncIterator[bytes]:
            yield b": watching\n\n"
            while True:
                yield _event(await watcher.get())

        return StreamingResponse(told(), media_type="text/event-stream")

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        answer = self.answers.pop(0) if self.answers else Answer()
        self._given.append(answer)
        if answer.refusal is not None:
            status, error = answer.refusal
            return JSONResponse({"error": error}, status)
        return StreamingResponse(self._stream(body, answer), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], answer: Answer) -> AsyncIterator[bytes]:
        is_over = False
        try:
            async for block in _blocks(body, answer):
                yield block
            is_over = True
        finally:
            self.num_aborted += not is_over
            self.num_ended += is_over


async def _blocks(body: dict[str, Any], answer: Answer) -> AsyncIterator[bytes]:
    chunk = {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
    }

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return _event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    for place in answer.queued:
        yield f": queued {place}\n\n".encode()
        await asyncio.sleep(0.05)
    yield choice({"role": "assistant", "content": ""})
    begin_s = time.monotonic()
    for index, piece in enumerate(answer.pieces):
        if index == answer.hold_at:
            await asyncio.to_thread(answer.resume.wait, HOLD_TIMEOUT_S)
        if index == answer.cut_at:
            if answer.error is None:
                raise ConnectionAbortedError("as the script says")
            break
        if answer.tokens_per_s is not None:
            await asyncio.sleep(max(0.0, begin_s + index / answer.tokens_per_s - time.monotonic()))
        yield choice({"content": piece})
    if answer.error is not None:
        yield _event({"error": answer.error})
        return
    yield choice({}, answer.finish_reason)
    num_output = len(answer.pieces)
    usage = {"prompt_tokens": 10, "completion_tokens": num_output, "total_tokens": 10 + num_output}
    timings = {"queue_s": 0.0, "prefill_s": 0.05, "decode_s": num_output / 50, "tokens_per_second": 50.0}
    yield _event({**chunk, "choices": [], "usage": usage, "timings": timings})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
