"""A small Hub over real HTTP: one repository, its visitors, and the ways in which a Hub fails.

What it answers follows the real Hub: statuses, X-Error-Code and X-Error-Message of each refusal,
ETags (git's blob sha1, or sha256 for large files), X-Repo-Commit, ranges, redirects to a second host.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from support.http_servers import QuietHandler, served
from support.hub_visitors import Visitor, gate, whoami

COMMIT = "a" * 40
REPO = "someone/tiny"
CDN_PREFIX = "/cdn/"


@dataclass
class Received:
    """One request, as the Hub or its second host saw it."""

    host: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Busy:
    """An answer that comes in place of the right one, once; `path_part` picks the requests."""

    status: int
    headers: dict[str, str]
    path_part: str = ""


class FakeHub:
    """A Hub with one model.

    Attributes:
        failure: None, "silent", "html", (status, X-Error-Code) or (status, code, X-Error-Message).
        visitors: by token; requests with another token are refused with 401.
        is_gated: whether files (not the listing) need a token with access.
        delivered: what is sent for each file, in case it differs from what is published.
        pages: names of files that are answered with a login page of status 200.
        cuts: per file, after how many bytes the connection breaks off; each is used once.
        holds: per file, after how many bytes the server falls silent until `release` is set.
        busy: answers that are given once each before anything else.
        has_ranges: False answers every request for a file with all of it.
        has_cdn: large files are redirected to a second host.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.failure: str | tuple[int, str] | tuple[int, str, str] | None = None
        self.delivered = dict(files)
        self.requests: list[str] = []
        self.received: list[Received] = []
        self.visitors: dict[str, Visitor] = {}
        self.is_gated = False
        self.pages: set[str] = set()
        self.cuts: dict[str, list[int]] = {}
        self.holds: dict[str, int] = {}
        self.busy: list[Busy] = []
        self.has_ranges = True
        self.has_cdn = False
        self.base_url = ""
        self.cdn_url = ""
        self.release = threading.Event()

    @contextmanager
    def serve(self) -> Iterator["FakeHub"]:
        hub = self

        class Handler(QuietHandler):
            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

        class CdnHandler(QuietHandler):
            def do_GET(self):
                hub.answer_cdn(self)

        with ExitStack() as servers:
            self.base_url = servers.enter_context(served(Handler))
            self.cdn_url = servers.enter_context(served(CdnHandler))
            try:
                yield self
            finally:
                self.release.set()

    def downloaded(self) -> list[str]:
        """Files whose bytes were asked for."""
        return [
            line.rpartition("/")[2]
            for line in self.requests
            if line.startswith("GET") and "/resolve/" in line
        ]

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of each request for a file's bytes, in order; None where there was none."""
        return [
            request.headers.get("range")
            for request in self.received
            if request.method == "GET" and request.host == "hub" and request.path.endswith(f"/{name}")
        ]

    def answer(self, handler: QuietHandler) -> None:
        path = self.note(handler, "hub")
        self.requests.append(f"{handler.command} {path}")
        if not (self.fail(handler, path) or self.refuse(handler, path)):
            self.serve_path(handler, path)

    def answer_cdn(self, handler: QuietHandler) -> None:
        self.send_bytes(handler, self.note(handler, "cdn").removeprefix(CDN_PREFIX), {})

    def note(self, handler: QuietHandler, host: str) -> str:
        path = urlsplit(handler.path).path
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.received.append(Received(host, handler.command, path, headers))
        return path

    def fail(self, handler: QuietHandler, path: str) -> bool:
        for answer in self.busy:
            if answer.path_part in path:
                self.busy.remove(answer)
                handler.reply(answer.status, b"{}", answer.headers)
                return True
        if self.failure == "silent":
            self.release.wait(60)
        elif self.failure == "html":
            send_page(handler)
        elif self.failure:
            refuse(handler, *self.failure)
        return self.failure is not None

    def refuse(self, handler: QuietHandler, path: str) -> bool:
        """Whether who asks may not have this, and was told so."""
        authorization = handler.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        visitor = self.visitors.get(token)
        if token is not None and visitor is None:
            refuse(handler, 401, "", "Invalid credentials in Authorization header")
        elif visitor is None and path == "/api/whoami-v2":
            refuse(handler, 401, "", "Invalid username or password.")
        elif self.is_gated and "/resolve/" in path and (visitor is None or visitor.access != "granted"):
            refuse(handler, *gate(REPO, visitor))
        else:
            return False
        return True

    def serve_path(self, handler: QuietHandler, path: str) -> None:
        info = f"/api/models/{REPO}"
        if path == "/api/whoami-v2":
            token = handler.headers["Authorization"].removeprefix("Bearer ")
            send_json(handler, whoami(self.visitors[token]))
        elif path in (info, f"{info}/revision/main", f"{info}/revision/{COMMIT}"):
            send_json(handler, self.model_info())
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            send_json(handler, self.tree())
        elif path.startswith(f"/{REPO}/resolve/"):
            self.send_file(handler, path.rpartition("/")[2])
        else:
            code = "RevisionNotFound" if path.startswith(f"/api/models/{REPO}/") else "RepoNotFound"
            refuse(handler, 404, code)

    def send_file(self, handler: QuietHandler, name: str) -> None:
        if name in self.pages:
            send_page(handler)
            return
        etag = self.etag(name)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        if is_large(name):
            size_bytes = len(self.delivered[name])
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size_bytes)}
            if self.has_cdn:
                location = f"{self.cdn_url}{CDN_PREFIX}{name}?signature=abc"
                handler.reply(302, b"", {**headers, "Location": location})
                return
        self.send_bytes(handler, name, headers)

    def send_bytes(self, handler: QuietHandler, name: str, headers: dict[str, str]) -> None:
        content = self.delivered[name]
        asked = handler.headers.get("Range") if self.has_ranges else None
        status, body = 200, content
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
            if start >= len(content):
                handler.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status, body = 206, content[start:stop]
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        if handler.command == "GET" and self.cuts.get(name):
            cut(handler, status, body, headers, self.cuts[name].pop(0))
        elif handler.command == "GET" and name in self.holds:
            begin(handler, status, body, headers, self.holds[name])
            self.release.wait(60)
            handler.close_connection = True
        else:
            handler.reply(status, body, headers)

    def etag(self, name: str) -> str:
        content = self.files[name]
        if is_large(name):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def model_info(self) -> dict[str, object]:
        siblings = []
        for name, content in self.files.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": self.etag(name)}
            if is_large(name):
                sibling["lfs"] = {"sha256": self.etag(name), "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {
            "id": REPO,
            "modelId": REPO,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "siblings": siblings,
        }

    def tree(self) -> list[dict[str, object]]:
        entries = []
        for name, content in self.files.items():
            entry: dict[str, object] = {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": self.etag(name),
            }
            if is_large(name):
                entry["lfs"] = {"oid": self.etag(name), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def refuse(handler: QuietHandler, status: int, code: str = "", message: str = "") -> None:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    body = json.dumps({"error": message} if message else {}).encode()
    handler.reply(status, body, {name: value for name, value in headers.items() if value})


def send_json(handler: QuietHandler, answer: object) -> None:
    handler.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def send_page(handler: QuietHandler) -> None:
    handler.reply(200, b"<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})


def begin(handler: QuietHandler, status: int, body: bytes, headers: dict[str, str], num_bytes: int) -> None:
    """Announce the whole body and send its beginning."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body[:num_bytes])
    handler.wfile.flush()


def cut(handler: QuietHandler, status: int, body: bytes, headers: dict[str, str], num_bytes: int) -> None:
    begin(handler, status, body, headers, num_bytes)
    handler.close_connection = True
