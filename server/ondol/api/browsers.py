"""What browsers may do here: which Host names, which websites (CORS), and what a preflight is told.

A page of any website can send requests to this machine, and a name that resolves to it can make them
same-origin (DNS rebinding). Knows nothing about keys or routes. Invariant: a website that is not
allowed reads nothing and changes nothing; programs, which send no Origin, are not affected.
"""

import ipaddress
import socket
from collections.abc import Sequence
from http import HTTPMethod
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ondol.api.errors import error_response
from ondol.errors import OriginRefused

ANY = "*"
SAFE_METHODS = frozenset({HTTPMethod.GET, HTTPMethod.HEAD, HTTPMethod.OPTIONS})
ALLOWED_METHODS = "GET, POST, DELETE, OPTIONS"
EXPOSED_HEADERS = "x-request-id, x-ondol-ignored, retry-after"
PREFLIGHT_MAX_AGE_S = 600


class BrowserGuard:
    """Pure ASGI middleware, outside of the keys: a preflight carries none."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], origins: Sequence[str]) -> None:
        """See `host_names` for `hosts`; `origins` are such as "https://chat.example.com", or "*"."""
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed, answer preflights, refuse the rest in OpenAI's shape."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        origin = headers.get("origin")
        if origin is None or not self._is_allowed(origin):
            await self._app(scope, receive, send)
        elif _is_preflight(scope["method"], headers):
            await _preflight_answer(origin, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, _readable_by(origin, send))

    def _refusal(self, method: str, headers: Headers) -> OriginRefused | None:
        host = headers.get("host", "")
        if not self._is_known_host(host):
            return OriginRefused(
                f"This daemon does not go by the name '{host:.200}'. If it should, start it with "
                "--allowed-hosts NAME.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        is_foreign = origin is not None and not _is_same_origin(origin, host) and not self._is_allowed(origin)
        if is_foreign and (method not in SAFE_METHODS or _is_preflight(method, headers)):
            return OriginRefused(
                f"Pages of {origin:.200} may not use this daemon. If they should, start it with "
                "--cors-origins ORIGIN.",
                code="origin_not_allowed",
            )
        return None

    def _is_known_host(self, header: str) -> bool:
        if ANY in self._hosts:
            return True
        name = host_name(header)
        return name in self._hosts or name.endswith(".localhost") or is_address(name)

    def _is_allowed(self, origin: str) -> bool:
        return ANY in self._origins or origin.lower() in self._origins


def host_names(host: str, allowed: Sequence[str], *, is_guarded: bool) -> tuple[str, ...]:
    """The names under which a daemon on `host` answers browsers; addresses are always among them.

    Args:
        host: where it listens.
        allowed: the user's own list; taken as it is, beside what this machine is called.
        is_guarded: whether clients need a key, which a page under a forged name does not have, and
            the daemon listens on a network, where it may have any name.
    """
    if is_guarded and not allowed:
        return (ANY,)
    return ("localhost", socket.gethostname().lower(), host, *allowed)


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def is_address(name: str) -> bool:
    """Whether it is an IP address: no name service stands between it and the machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_preflight(method: str, headers: Headers) -> bool:
    return method == HTTPMethod.OPTIONS and "access-control-request-method" in headers and "origin" in headers


def _preflight_answer(origin: str, headers: Headers) -> Response:
    """What was asked for is allowed: the key decides later, not the browser."""
    answer = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": ALLOWED_METHODS,
        "access-control-max-age": str(PREFLIGHT_MAX_AGE_S),
        "vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
    }
    if asked := headers.get("access-control-request-headers"):
        answer["access-control-allow-headers"] = asked
    # Chromium asks this before a public page may speak to a private address.
    if headers.get("access-control-request-private-network") == "true":
        answer["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=answer)


def _readable_by(origin: str, send: Send) -> Send:
    """Marks an answer as readable by pages of `origin`; never with credentials, keys are no cookies."""

    async def send_readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = EXPOSED_HEADERS
            headers.add_vary_header("Origin")
        await send(message)

    return send_readable
