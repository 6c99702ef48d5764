"""A daemon's chat endpoints over real HTTP, with answers that the test writes.

It answers in a thread, so that commands that block can be tested in the test's own process.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.http_servers import QuietHandler, served

Body = dict[str, Any]


def echo(body: Body) -> list[str]:
    """The default answer: what was said last."""
    return ["You said: ", body["messages"][-1]["content"] if "messages" in body else body["prompt"]]


class ChatServer:
    """`answer` gives the pieces of an answer.

    A piece of None keeps the answer open until its reader goes away, which sets `was_left`. `broken_by` is an
    error object that comes after the pieces; `error` refuses instead, as (status, error object).
    """

    def __init__(self, ids: tuple[str, ...] = ("tiny",)) -> None:
        self.ids = ids
        self.answer: Callable[[Body], list[str | None]] = echo
        self.error: tuple[int, Body] | None = None
        self.has_template = True
        self.finish_reason: str | None = "stop"
        self.broken_by: Body | None = None
        self.bodies: list[Body] = []
        self.paths: list[str] = []
        self.was_left = threading.Event()
        self.is_streaming = threading.Event()
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator["ChatServer"]:
        server = self

        class Handler(QuietHandler):
            def do_GET(self):
                server.get(self)

            def do_POST(self):
                server.post(self)

        with served(Handler) as url:
            self.url = url
            yield self

    def get(self, handler: QuietHandler) -> None:
        cards = {"object": "list", "data": [{"id": name} for name in self.ids]}
        known = {"/health": {"status": "ok"}, "/ready": {"status": "ready"}, "/v1/models": cards}
        reply(handler, 200, known[handler.path])

    def post(self, handler: QuietHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.bodies.append(body)
        self.paths.append(handler.path)
        if self.error is not None:
            reply(handler, self.error[0], {"error": self.error[1]})
        elif handler.path == "/v1/chat/completions" and not self.has_template:
            message = "This model has no chat template; use /v1/completions."
            error = {
                "message": message,
                "type": "invalid_request_error",
                "param": "model",
                "code": "no_chat_template",
            }
            reply(handler, 400, {"error": error})
        else:
            self.stream(handler, body)

    def stream(self, handler: QuietHandler, body: Body) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for piece in self.answer(body):
            if piece is None:
                self.is_streaming.set()
                self.wait_until_left(handler)
                return
            event(handler, {"choices": [choice(handler.path, piece)]})
        if self.broken_by is not None:
            event(handler, {"error": self.broken_by})
            return
        event(handler, {"choices": [choice(handler.path, "", self.finish_reason)]})
        event(handler, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        handler.wfile.write(b"data: [DONE]\n\n")

    def wait_until_left(self, handler: QuietHandler) -> None:
        if handler.connection.recv(1) == b"":
            self.was_left.set()


def choice(path: str, text: str, finish_reason: str | None = None) -> Body:
    words = {"text": text} if path == "/v1/completions" else {"delta": {"content": text}}
    return {"index": 0, "finish_reason": finish_reason, **words}


def event(handler: QuietHandler, payload: Body) -> None:
    handler.wfile.write(b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n")
    handler.wfile.flush()


def reply(handler: QuietHandler, status: int, body: Body) -> None:
    handler.reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
