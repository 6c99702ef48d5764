"""GET /health, /ready and /metrics: what machines ask about the daemon.

Knows nothing about generation. Invariant: health tells whether a restart would help, readiness
whether a new request would be taken; a loading daemon is healthy and not ready.
"""

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ondol.api.context import ApiContext, context_of

router = APIRouter()


class ProbeAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason` says why the status is not good."""

    status: str
    reason: str | None = None


@router.get("/health", summary="Liveness")
async def health(request: Request) -> Response:
    """200 while the daemon can work, 503 once an engine has died."""
    failure = _engine_failure(context_of(request))
    return _probe(ProbeAnswer("ok") if failure is None else ProbeAnswer("engine_dead", failure))


@router.get("/ready", summary="Readiness")
async def ready(request: Request) -> Response:
    """200 while new requests are taken; 503 while loading, draining, or without an engine."""
    context = context_of(request)
    failure = _engine_failure(context)
    if failure is not None:
        return _probe(ProbeAnswer("engine_dead", failure))
    return _probe(ProbeAnswer(context.lifecycle.phase))


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    openapi_extra={"responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}}},
)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    meters = context_of(request).metrics
    return Response(meters.exposition(), headers={"content-type": meters.content_type})


def _engine_failure(context: ApiContext) -> str | None:
    for model in context.manager.served():
        if not model.engine.is_alive:
            return model.engine.failure or f"The engine of '{model.name}' is not running."
    return None


def _probe(answer: ProbeAnswer) -> Response:
    status_code = 200 if answer.status in {"ok", "ready"} else 503
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(answer), status_code, headers, media_type="application/json")
