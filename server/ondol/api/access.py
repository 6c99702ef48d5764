"""Who may come in: API keys, and the refusal to stand open on a network.

Knows nothing about models. Invariant: deny by default — with keys set, every path but the probes and the
files of the web page needs one, decided on the raw ASGI path and never on a URL that a Host header can shape.
"""

import ipaddress
import logging
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ondol.api.errors import error_response
from ondol.config import ApiConfig
from ondol.errors import ConfigError, KeyLimitReached, OndolError, Unauthorized
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import digest
from ondol.keys.usage import KeyUsage

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
METRICS_PATH = "/metrics"
COUNTED_METHODS = frozenset({"POST", "DELETE"})


class ApiKeyGuard:
    """Pure ASGI middleware (a BaseHTTPMiddleware would hide disconnects from the routes).

    Leaves in scope["state"]: `cache_salt`, and `key_usage` for those who count tokens.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        metrics_require_key: bool = True,
        open_route: BaseRoute | None = None,
    ) -> None:
        """`open_route` is reached without a key; it must match nothing that another route answers."""
        self._app = app
        self._open_route = open_route
        self._keys = keys
        self._open_paths = OPEN_PATHS if metrics_require_key else OPEN_PATHS | {METRICS_PATH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed; answer the rest with 401 or 429 in OpenAI's shape."""
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        presented = _bearer_token(scope)
        try:
            is_required = self._keys.is_required
            usage = None if presented is None else self._keys.find(presented)
        except ConfigError as error:
            logger.error("nobody can come in: %s", error)
            unreadable = OndolError("The API keys cannot be read; the daemon's log tells why.")
            await error_response(unreadable)(scope, receive, send)
            return
        if not is_required:
            await self._app(scope, receive, send)
            return
        if presented is None or usage is None:
            await error_response(_refusal(presented))(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        # How long a prompt takes tells what is cached: no key may probe another one's prompts.
        state["cache_salt"] = digest(presented)
        state["key_usage"] = usage
        with ExitStack() as resources:
            if scope.get("method") in COUNTED_METHODS:
                try:
                    resources.enter_context(usage.request())
                except KeyLimitReached as error:
                    await error_response(error)(scope, receive, _with_limits(send, usage))
                    return
            await self._app(scope, receive, _with_limits(send, usage))

    def _is_open(self, scope: Scope) -> bool:
        if scope["path"] in self._open_paths:
            return True
        return self._open_route is not None and self._open_route.matches(scope)[0] is Match.FULL


def check_exposure(config: ApiConfig, keys: KeyRing) -> None:
    """Raise ConfigError when the daemon would answer anybody on a network without a key."""
    if is_loopback(config.host) or keys.is_required or config.allow_unauthenticated:
        return
    raise ConfigError(
        f"host {config.host} is reachable from other machines and no API key is set; make one with "
        "`ondol key create NAME` or set --api-key, or pass --allow-unauthenticated to serve anybody"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; names other than localhost count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _with_limits(send: Send, usage: KeyUsage) -> Send:
    """Adds the key's limits to the headers of an answer."""

    async def send_with_limits(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(usage.headers())
        await send(message)

    return send_with_limits


def _bearer_token(scope: Scope) -> bytes | None:
    """The key as the client's bytes: keys may hold any UTF-8, headers read as text are Latin-1."""
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = header.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _refusal(presented: bytes | None) -> Unauthorized:
    if presented is None:
        return Unauthorized("No API key was sent. Send it in the header 'Authorization: Bearer KEY'.")
    return Unauthorized("The API key is not valid.")
