"""Speaks to a running daemon, for the commands that ask it for something.

Knows nothing about what is asked or how answers are shown. Invariant: whatever goes wrong on the way
is raised as the error that the daemon would have raised here, so that exit codes are the same.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click
import httpx

from ondol.bench.sse import EventParser
from ondol.cli.flags import CommandFunction, settings_options
from ondol.config import Settings
from ondol.errors import (
    AccessDenied,
    ConfigError,
    DaemonUnreachable,
    DeviceUnusable,
    DoesNotFit,
    EngineFailed,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    InvalidRequest,
    ModelNotFound,
    ModelRefused,
    NotNow,
    OndolError,
    SourceUnreachable,
    Unauthorized,
)

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 30.0
# For what may take minutes: a load, a long answer.
PATIENT = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
STREAM_END = b"[DONE]"

# The settings that say which keys a daemon takes, as a client reads them.
KEY_HELPS = {
    "api_key": "API key to send, where the daemon asks for one.",
    "api_key_file": "File with API keys, the first of which is sent.",
}

JsonObject = dict[str, Any]


class ModelUnknownToDaemon(ModelNotFound):
    """ModelNotFound in the daemon's words."""

    def __init__(self, message: str) -> None:
        super().__init__("")
        self.args = (message,)


# The codes of `api/errors.py` whose errors have an exit code; a test holds the two together.
_ERRORS: dict[str | None, Callable[[str], OndolError]] = {
    "invalid_api_key": lambda message: Unauthorized(f"{message} Pass it with --api-key or ONDOL_API_KEY."),
    "model_not_found": ModelUnknownToDaemon,
    "hub_token_missing": HubTokenMissing,
    "hub_token_invalid": HubTokenInvalid,
    "hub_access_not_granted": HubAccessNotGranted,
    "hub_access_pending": HubAccessPending,
    "hub_token_lacks_scope": HubTokenLacksScope,
    "hub_access_denied": AccessDenied,
    "model_does_not_fit": DoesNotFit,
    "model_refused": ModelRefused,
    "source_unreachable": SourceUnreachable,
    "config_error": ConfigError,
    "device_unusable": DeviceUnusable,
    "engine_failed": EngineFailed,
    "rate_limit_exceeded": NotNow,
    "queue_full": NotNow,
    "model_in_use": NotNow,
    "load_stopped": NotNow,
    "no_room_yet": NotNow,
    "model_loading": NotNow,
    "model_unloading": NotNow,
    "shutting_down": NotNow,
}


class DaemonClient(AbstractContextManager["DaemonClient"]):
    """One daemon's HTTP API; every method raises DaemonUnreachable where no daemon answers."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.api_key = api_key
        self.url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
        with self._reaching():
            self._http = httpx.Client(
                base_url=self.url,
                # As bytes: keys may hold any UTF-8.
                headers={b"authorization": f"Bearer {api_key}".encode()} if api_key else None,
                timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
                # A proxy of the environment has no way to this machine's loopback.
                trust_env=False,
            )

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> "DaemonClient":
        """The daemon that `ondol serve` with these settings is, or the one at `url`."""
        api_keys = settings.api().api_keys
        return cls(url or daemon_url(settings.host, settings.port), api_keys[0] if api_keys else None)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def is_running(self) -> bool:
        """Whether a daemon answers, ready or not."""
        try:
            answer = self._http.get("/health", timeout=CONNECT_TIMEOUT_S)
        except httpx.TransportError:
            return False
        return answer.headers.get("content-type") == "application/json" and "status" in self._json(answer)

    def get_json(self, path: str, **params: str | int) -> JsonObject:
        """The answer to GET `path`; raises the error that it tells of."""
        return self._answer(self._http.build_request("GET", path, params=params))

    def post_json(self, path: str, body: object) -> JsonObject:
        """The answer to POST `path`, for which it waits as long as it takes."""
        return self._answer(self._http.build_request("POST", path, json=body, timeout=PATIENT))

    def delete_json(self, path: str, **params: str | int) -> JsonObject:
        """The answer to DELETE `path`."""
        return self._answer(self._http.build_request("DELETE", path, params=params))

    def events(
        self, path: str, body: object = None, *, on_open: Callable[[], None] | None = None
    ) -> Iterator[JsonObject]:
        """The server-sent events of GET `path`, or of POST with a body, as they come.

        `on_open` is called once the daemon has begun to answer: what happens from then on is told.
        An error event is raised. Close the iterator to leave early.
        """
        method = "GET" if body is None else "POST"
        with self._reaching(), self._http.stream(method, path, json=body, timeout=PATIENT) as answer:
            if not answer.is_success:
                answer.read()
                raise self._error_of(answer)
            if on_open is not None:
                on_open()
            parser = EventParser()
            for block in answer.iter_bytes():
                for data in parser.push(block):
                    if data == STREAM_END:
                        return
                    event = json.loads(data)
                    if "error" in event:
                        raise typed_error(event["error"])
                    yield event

    def _answer(self, request: httpx.Request) -> JsonObject:
        with self._reaching():
            answer = self._http.send(request)
        if not answer.is_success:
            raise self._error_of(answer)
        return self._json(answer)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise DaemonUnreachable(
                f"No daemon answers at {self.url}. Start one with `ondol serve MODEL`, or name another "
                "with --url."
            ) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise DaemonUnreachable(f"{self.url} is no address of a daemon: {error}") from error
        except httpx.TransportError as error:
            raise DaemonUnreachable(
                f"The daemon at {self.url} ended the conversation: {str(error) or type(error).__name__}."
            ) from error

    def _json(self, answer: httpx.Response) -> JsonObject:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise DaemonUnreachable(f"What answers at {self.url} is no Ondol daemon.")
        return body

    def _error_of(self, answer: httpx.Response) -> OndolError:
        error = self._json(answer).get("error")
        if not isinstance(error, dict):
            return DaemonUnreachable(f"What answers at {self.url} is no Ondol daemon.")
        return typed_error(error)


def typed_error(error: JsonObject) -> OndolError:
    """The error behind OpenAI's error object, by its `code`."""
    code, message = error.get("code"), str(error.get("message", ""))
    if code in _ERRORS:
        return _ERRORS[code](message)
    if error.get("type") == "invalid_request_error":
        return InvalidRequest(message, error.get("param"), code)
    return AccessDenied(message) if error.get("type") == "permission_error" else OndolError(message)


def daemon_url(host: str, port: int) -> str:
    """Where a daemon that listens on `host` is reached from this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{f'[{host}]' if address.version == 6 else host}:{port}"


def daemon_options(*keys: str) -> Callable[[CommandFunction], CommandFunction]:
    """Decorator: `--url`, the flags that `DaemonClient.of` reads its settings from, and those of `keys`.

    The command gets `url` and the settings' flags: `DaemonClient.of(load_settings(flags), url)`.
    """
    url = click.option(
        "--url", metavar="URL", help="Address of the daemon [default: http://HOST:PORT of the settings]."
    )
    with_settings = settings_options(*keys, *KEY_HELPS, helps=KEY_HELPS)
    return lambda function: url(with_settings(function))
