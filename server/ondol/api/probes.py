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
    """200 while the daemon answers: a restart would only cost the other models their streams.

    An engine that has died is told, and replaced when its model is asked for next.
    """
    failure = _engine_failure(context_of(request))
    return _probe(ProbeAnswer("ok") if failure is None else ProbeAnswer("degraded", failure))


@router.get("/ready", summary="Readiness")
async def ready(request: Request) -> Response:
    """200 while new requests are taken; 503 while the first model is loading, or while draining."""
    return _probe(ProbeAnswer(context_of(request).lifecycle.phase))


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
    status_code = 200 if answer.status in {"ok", "degraded", "ready"} else 503
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(answer), status_code, headers, media_type="application/json")
