"""The one place where a failure becomes an HTTP answer, always in OpenAI's shape.

Knows nothing about what failed beyond the error's class and data. Invariant: no answer of this
daemon with status >= 400 has another shape than {"error": {message, type, param, code}}.
"""

from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ondol.errors import (
    AccessDenied,
    ConfigError,
    DeviceUnusable,
    DoesNotFit,
    Draining,
    EngineFailed,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    InvalidRequest,
    KeyLimitReached,
    Loading,
    LoadStopped,
    ModelInUse,
    ModelNotFound,
    ModelRefused,
    NoRoomYet,
    OndolError,
    OriginRefused,
    QueueFull,
    SourceUnreachable,
    Unauthorized,
    Unloading,
)

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
CLIENT_CLOSED_REQUEST = 499


class BodyTooLarge(InvalidRequest):
    """The request body is larger than the daemon takes."""

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        super().__init__(f"The request body is larger than {max_body_bytes} bytes.", code="request_too_large")


class ErrorDetail(msgspec.Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error body; also the payload of an error event in a stream."""

    error: ErrorDetail


class _Kind(NamedTuple):
    status: int
    type: str
    param: str | None
    code: str | None


# The most derived class comes first.
_KINDS: tuple[tuple[type[OndolError], _Kind], ...] = (
    (BodyTooLarge, _Kind(413, INVALID_REQUEST, None, "request_too_large")),
    (InvalidRequest, _Kind(400, INVALID_REQUEST, None, None)),
    (OriginRefused, _Kind(403, "permission_error", None, None)),
    (KeyLimitReached, _Kind(429, "rate_limit_error", None, "rate_limit_exceeded")),
    (Unauthorized, _Kind(401, INVALID_REQUEST, None, "invalid_api_key")),
    (ModelNotFound, _Kind(404, INVALID_REQUEST, "model", "model_not_found")),
    (HubTokenMissing, _Kind(401, "permission_error", "model", "hub_token_missing")),
    (HubTokenInvalid, _Kind(401, "permission_error", "model", "hub_token_invalid")),
    (HubAccessNotGranted, _Kind(403, "permission_error", "model", "hub_access_not_granted")),
    (HubAccessPending, _Kind(403, "permission_error", "model", "hub_access_pending")),
    (HubTokenLacksScope, _Kind(403, "permission_error", "model", "hub_token_lacks_scope")),
    (AccessDenied, _Kind(403, "permission_error", "model", "hub_access_denied")),
    (DoesNotFit, _Kind(400, INVALID_REQUEST, "model", "model_does_not_fit")),
    (ModelRefused, _Kind(400, INVALID_REQUEST, "model", "model_refused")),
    (ConfigError, _Kind(500, SERVER_ERROR, None, "config_error")),
    (ModelInUse, _Kind(409, INVALID_REQUEST, "model", "model_in_use")),
    (LoadStopped, _Kind(409, INVALID_REQUEST, "model", "load_stopped")),
    (SourceUnreachable, _Kind(502, SERVER_ERROR, "model", "source_unreachable")),
    (DeviceUnusable, _Kind(500, SERVER_ERROR, None, "device_unusable")),
    (NoRoomYet, _Kind(503, SERVER_ERROR, "model", "no_room_yet")),
    (QueueFull, _Kind(429, "rate_limit_error", None, "queue_full")),
    (Loading, _Kind(503, SERVER_ERROR, None, "model_loading")),
    (Unloading, _Kind(503, SERVER_ERROR, "model", "model_unloading")),
    (Draining, _Kind(503, SERVER_ERROR, None, "shutting_down")),
    (EngineFailed, _Kind(500, SERVER_ERROR, None, "engine_failed")),
    (OndolError, _Kind(500, SERVER_ERROR, None, "internal_error")),
)


def documented_errors() -> dict[int | str, dict[str, Any]]:
    """What /openapi.json says of answers with status >= 400, which every route may give."""
    text: dict[str, Any] = {"type": "string"}
    detail = {
        "type": "object",
        "properties": {
            "message": text,
            "type": text,
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
        },
        "required": ["message", "type", "param", "code"],
    }
    schema = {"type": "object", "properties": {"error": detail}, "required": ["error"]}
    statuses = {kind.status for _, kind in _KINDS} | {HTTPStatus.METHOD_NOT_ALLOWED.value}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": schema}},
        }
        for status in sorted(statuses)
    }


def error_body(error: OndolError) -> ErrorBody:
    """The body, or the stream event, that tells a client of `error`."""
    kind = _kind_of(error)
    param, code = kind.param, kind.code
    if isinstance(error, InvalidRequest):
        param, code = error.param, error.code
    elif isinstance(error, OriginRefused):
        code = error.code
    return ErrorBody(ErrorDetail(message=str(error), type=kind.type, param=param, code=code))


def error_response(error: OndolError) -> Response:
    """A whole answer for an error that is known before the first byte."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, QueueFull | KeyLimitReached | Loading | Unloading | Draining | NoRoomYet):
        headers["retry-after"] = str(error.retry_after_s)
    return _respond(_kind_of(error).status, error_body(error), headers)


def internal_error_body() -> ErrorBody:
    """For our own bugs: says nothing about the inside; the log has the traceback."""
    return ErrorBody(
        ErrorDetail(
            message="The server had an error while processing the request.",
            type=SERVER_ERROR,
            param=None,
            code="internal_error",
        )
    )


def install_error_handlers(app: FastAPI) -> None:
    """Every failure of a route, also those that frameworks raise, goes through this module."""
    app.add_exception_handler(OndolError, _on_ondol_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_framework_validation)
    app.add_exception_handler(ClientDisconnect, _on_client_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def _kind_of(error: OndolError) -> _Kind:
    return next(kind for error_type, kind in _KINDS if isinstance(error, error_type))


def _respond(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def _on_ondol_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, OndolError):
        raise error
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind = SERVER_ERROR if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR else INVALID_REQUEST
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{error.detail}: {request.method} {request.scope['path']}"
    if error.status_code == HTTPStatus.NOT_FOUND:
        message += ". OpenAI's routes begin with /v1; /openapi.json lists all."
    code = phrase.lower().replace(" ", "_")
    body = ErrorBody(ErrorDetail(message=message, type=kind, param=None, code=code))
    return _respond(error.status_code, body, dict(error.headers or {}))


async def _on_framework_validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    body = ErrorBody(ErrorDetail(message=first["msg"], type=INVALID_REQUEST, param=param, code=None))
    return _respond(HTTPStatus.BAD_REQUEST, body)


async def _on_client_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_bug(request: Request, error: Exception) -> Response:
    response = _respond(HTTPStatus.INTERNAL_SERVER_ERROR, internal_error_body())
    # Starlette answers bugs outside of every middleware, where the id header would be missing.
    if request_id := request.scope.get("state", {}).get("request_id"):
        response.headers["x-request-id"] = request_id
    return response
