"""The web chat's files at `/`, with the headers that keep a page from running anything but its own code.

Knows nothing about what the page does; the files are `clients/web`, packed into the wheel. Invariants: a
path is the page's only while a file of a known kind lies there, so the page shadows no route and unknown
paths stay the API's; the page holds no secret, so it is read without a key.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPMethod
from pathlib import Path
from types import MappingProxyType

import anyio
from starlette.datastructures import Headers, URLPath
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

FOLDER = Path(__file__).with_name("web")
INDEX = "index.html"

# Named here: what Python's mimetypes answers for these is the machine's own affair.
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
# Tools of the page's set-up lie in the same folder of a checkout.
NOT_SERVED = frozenset({"node_modules", "tests"})
METHODS = frozenset({HTTPMethod.GET, HTTPMethod.HEAD})

# Nothing but the daemon's own files runs, styles or is asked. Text becomes markup only through the
# sanitizer, whose Trusted Types policy is the one that may.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        # Kept, and asked after each time: an updated daemon is never met by an older page.
        "cache-control": "no-cache",
    }
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    path: Path
    media_type: str


class WebPage(BaseRoute):
    """The last route of an app: GET and HEAD of the page's files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def find(self, path: str) -> PageFile | None:
        """The file behind the URL path `path`, or None; "/" is the page itself."""
        name = INDEX if path == "/" else path.removeprefix("/")
        parts = name.split("/")
        media_type = MEDIA_TYPES.get(Path(name).suffix)
        if media_type is None or not path.startswith("/") or any(not _is_served(part) for part in parts):
            return None
        file = self._folder.joinpath(*parts)
        return PageFile(file, media_type) if file.is_file() else None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request reads a file of the page."""
        is_read = scope["type"] == "http" and scope["method"] in METHODS
        if not is_read or (file := self.find(scope["path"])) is None:
            return Match.NONE, {}
        return Match.FULL, {"page_file": file}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file that `matches` found; 304 where the browser has it."""
        file: PageFile = scope["page_file"]
        content = await anyio.Path(file.path).read_bytes()
        # From the content: files unpacked from wheels and images may share a size and a time.
        etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
        headers = {**HEADERS, "etag": etag}
        known = Headers(scope=scope).get("if-none-match", "").split(",")
        if etag in (tag.strip().removeprefix("W/") for tag in known):
            answer = Response(status_code=304, headers=headers)
        else:
            answer = Response(content, headers=headers, media_type=file.media_type)
        await answer(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        """The page's files have no names to build URLs from."""
        raise NoMatchFound(name, path_params)


def _is_served(part: str) -> bool:
    """Whether one part of a URL path may name a folder or a file of the page."""
    is_plain = bool(part) and not part.startswith(".") and part.isascii() and part.isprintable()
    return is_plain and "\\" not in part and ":" not in part and part not in NOT_SERVED
