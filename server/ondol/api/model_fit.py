"""GET /models/fit: whether a model would fit.

Knows nothing about memory: `ondol fit` answers. Invariant: asking downloads no weights.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ondol.api.context import context_of
from ondol.api.model_name import checked_name
from ondol.api.waiting import while_wanted
from ondol.errors import InvalidRequest

router = APIRouter()


@router.get("/models/fit", summary="Tell whether a model would fit, before any download")
async def model_fit(
    request: Request,
    model: str = "",
    context: Annotated[int | None, Query(ge=1)] = None,
    concurrency: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The table of `ondol fit MODEL --json`: memory by quantization, and a verdict for this machine."""
    if not model:
        raise InvalidRequest("Name the model: /models/fit?model=NAME", param="model")
    arguments: list[str] = []
    if context is not None:
        arguments += ["--context", str(context)]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    shared = context_of(request)
    # Only this daemon knows a folder by the name that it is served under.
    folders = {
        status.id: status.path
        for status in shared.manager.statuses()
        if status.source.get("kind") == "folder" and status.path is not None
    }
    asked = folders.get(model) or checked_name(model, shared.manager)
    report = await while_wanted(request, shared.lifecycle, shared.fit_runs.report(asked, arguments))
    return Response(report, media_type="application/json")
