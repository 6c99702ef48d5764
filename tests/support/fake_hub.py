"""A small Hub over real HTTP: one repository, and the ways in which a Hub fails."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from support.http_servers import QuietHandler, served

COMMIT = "a" * 40
REPO = "someone/tiny"


class FakeHub:
    """`failure` is None, "silent", "html" or (status, X-Error-Code)."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.failure: str | tuple[int, str] | None = None
        self.delivered = dict(files)
        self.requests: list[str] = []
        self.base_url = ""
        self._closed = threading.Event()

    @contextmanager
    def serve(self) -> Iterator["FakeHub"]:
        hub = self

        class Handler(QuietHandler):
            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

        with served(Handler) as url:
            self.base_url = url
            try:
                yield self
            finally:
                self._closed.set()

    def downloaded(self) -> list[str]:
        """Files whose bytes were asked for."""
        return [
            line.rpartition("/")[2]
            for line in self.requests
            if line.startswith("GET") and "/resolve/" in line
        ]

    def answer(self, handler: QuietHandler) -> None:
        path = urlsplit(handler.path).path
        self.requests.append(f"{handler.command} {path}")
        if self.failure == "silent":
            self._closed.wait(60)
        elif self.failure == "html":
            handler.reply(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
        elif self.failure:
            status, code = self.failure
            handler.reply(status, b"{}", {"X-Error-Code": code} if code else {})
        elif path in (f"/api/models/{REPO}/revision/main", f"/api/models/{REPO}"):
            handler.reply(200, json.dumps(self.model_info()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            handler.reply(200, json.dumps(self.tree()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/{REPO}/resolve/"):
            self.send_file(handler, path.rpartition("/")[2])
        else:
            code = "RevisionNotFound" if path.startswith(f"/api/models/{REPO}/") else "RepoNotFound"
            handler.reply(404, b"{}", {"X-Error-Code": code})

    def send_file(self, handler: QuietHandler, name: str) -> None:
        content = self.delivered[name]
        etag = self.etag(name)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        if is_large(name):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        handler.reply(200, content, headers)

    def etag(self, name: str) -> str:
        digest = hashlib.sha256 if is_large(name) else hashlib.sha1
        return digest(self.files[name]).hexdigest()

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
