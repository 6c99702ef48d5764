"""A daemon without a model: the real page and the API's shapes over real HTTP, every answer scripted.

Knows nothing about browsers. Invariant: it says nothing that no script said; what it was asked is kept.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.daemon import poll
from support.scripted_answer import Answer, blocks, server_sent_event

from ondol.api.server import bind_socket
from ondol.api.web_page import FOLDER, WebPage

CONTEXT_LENGTH = 4096


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

    def __init__(self, page_folder: Path = FOLDER) -> None:
        self.port = 0
        self.reset()
        self._page = WebPage(page_folder)
        self._given: list[Answer] = []
        self._watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def reset(self) -> None:
        """Forget what was asked and what was set."""
        self.bodies: list[dict[str, Any]] = []
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Answer] = []
        self.num_aborted = 0
        self.num_ended = 0
        self.api_key: str | None = None
        self.phase = "ready"
        self.models = [model_entry("stub")]

    @property
    def asked(self) -> list[list[str]]:
        """What the messages of each chat's request said."""
        return [[message["content"] for message in body["messages"]] for body in self.bodies]

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
            self._page,
            Route("/{path:path}", self._guarded(self._refuse)),
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

    async def _refuse(self, request: Request) -> Response:
        return JSONResponse({"error": error_object(f"No {request.url.path} here.", None)}, 404)

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
        self._watchers.add(watcher)

        async def told() -> AsyncIterator[bytes]:
            try:
                yield b": watching\n\n"
                while True:
                    yield server_sent_event(await watcher.get())
            finally:
                self._watchers.discard(watcher)

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
            async for block in blocks(body, answer):
                yield block
            is_over = True
        finally:
            self.num_aborted += not is_over
            self.num_ended += is_over
