"""Who may come in: API keys, and the refusal to stand open on a network.

Knows nothing about routes or models. Invariant: deny by default — with keys set, every path but the
two probes needs one, decided on the raw ASGI path and never on a URL that a Host header can shape.
"""

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from ondol.api.errors import error_response
from ondol.config import ApiConfig
from ondol.errors import ConfigError, Unauthorized

OPEN_PATHS = frozenset({"/health", "/ready"})


class ApiKeyGuard:
    """Pure ASGI middleware (a BaseHTTPMiddleware would hide disconnects from the routes)."""

    def __init__(self, app: ASGIApp, *, api_keys: Sequence[str]) -> None:
        self._app = app
        self._digests = tuple(_digest(key.encode()) for key in api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed; answer the rest with 401 in OpenAI's shape."""
        if not self._digests or scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        presented = _bearer_token(scope)
        if presented is None or not self._is_known(presented):
            await error_response(_refusal(presented))(scope, receive, send)
            return
        # How long a prompt takes tells what is cached: no key may probe another one's prompts.
        scope.setdefault("state", {})["cache_salt"] = _digest(presented).hex()
        await self._app(scope, receive, send)

    def _is_known(self, key: bytes) -> bool:
        presented = _digest(key)
        # Every digest is compared, also after a match, so the time tells nothing.
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return True in matches


def check_exposure(config: ApiConfig) -> None:
    """Raise ConfigError when the daemon would answer anybody on a network without a key."""
    if is_loopback(config.host) or config.api_keys or config.allow_unauthenticated:
        return
    raise ConfigError(
        f"host {config.host} is reachable from other machines and no API key is set; "
        "set --api-key, or pass --allow-unauthenticated to serve anybody"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; names other than localhost count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _bearer_token(scope: Scope) -> bytes | None:
    """The key as the client's bytes: keys may hold any UTF-8, headers read as text are Latin-1."""
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = header.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _refusal(presented: bytes | None) -> Unauthorized:
    if presented is None:
        return Unauthorized("No API key was sent. Send it in the header 'Authorization: Bearer KEY'.")
    return Unauthorized("The API key is not valid.")
