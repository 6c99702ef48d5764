"""GET, POST and DELETE /models, /models/load and /models/unload: which models are here and loaded.

The words are those of llama.cpp's server in router mode (docs/models-api.md). Knows nothing about how
a model is loaded. Invariant: an order is refused in its answer, or its failure is told by GET /models
and /models/sse.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from pydantic import ByteSize, Field
from starlette.responses import Response

from ondol.api.body import WireModel, documented_body, ignored_header, read_fields
from ondol.api.context import ApiContext, context_of
from ondol.api.generation_fields import Duration, ModelName
from ondol.api.lifecycle import SHUTTING_DOWN
from ondol.api.model_name import checked_name
from ondol.api.model_status import ModelEntry, model_entry
from ondol.api.waiting import while_wanted
from ondol.config.groups import GIB, Gibibytes
from ondol.config.quantization import Method
from ondol.errors import Draining, InvalidRequest
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.manager import ModelManager

Order = TypeVar("Order", bound="ModelOrder")

router = APIRouter()


class ModelOrder(WireModel):
    """The body of POST /models and /models/unload; `wait` answers when it is done."""

    model: ModelName
    wait: bool = False


class LoadBody(ModelOrder):
    """The body of POST /models/load; see `LoadOrder` for what the fields mean.

    `context` is another name for `max_model_len`.
    """

    quantization: Method | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    context: Annotated[int, Field(ge=1)] | None = None
    kv_cache_memory: Annotated[ByteSize, Field(gt=0)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] | None = None
    cpu_offload_gb: Gibibytes | None = None
    deterministic: bool | None = None
    keep_alive: Duration | None = None
    pin: bool = False
    download: bool = True

    def order(self, manager: ModelManager) -> LoadOrder:
        """What the manager is asked for."""
        return LoadOrder(
            model=checked_name(self.model, manager),
            quantization=self.quantization,
            dtype=self.dtype,
            max_model_len=self.context if self.max_model_len is None else self.max_model_len,
            kv_cache_bytes=None if self.kv_cache_memory is None else int(self.kv_cache_memory),
            kv_cache_dtype=self.kv_cache_dtype,
            offload_bytes=None if self.cpu_offload_gb is None else int(self.cpu_offload_gb * GIB),
            deterministic=self.deterministic,
            keep_alive_s=self.keep_alive,
            is_pinned=self.pin,
            allow_download=self.download,
        )


class EntryList(Struct, frozen=True):
    """The answer of GET /models."""

    data: list[ModelEntry]
    object: Literal["list"] = "list"


class Accepted(Struct, frozen=True):
    """The answer to an order: it is underway, or done; `data` is the model after a wait."""

    model: str
    data: ModelEntry | UnsetType = UNSET
    success: Literal[True] = True


@router.get("/models", summary="List the models of this machine")
async def list_models(request: Request) -> Response:
    """Every model that is here or on its way, loaded or not, with its status."""
    manager = context_of(request).manager
    await manager.refresh()
    return _json(EntryList([model_entry(status) for status in manager.statuses()]))


@router.post("/models", summary="Download a model", openapi_extra=documented_body("/models", ModelOrder))
async def download_model(request: Request) -> Response:
    """Answers at once; progress is told by /models/sse. Give it up with /models/unload."""
    order, headers = await _order(request, ModelOrder)
    manager = context_of(request).manager
    name = LoadOrder(checked_name(order.model, manager)).name
    return await _carry_out(request, order, name, lambda: manager.pull(order.model), headers)


@router.delete("/models", summary="Remove a model from this machine")
async def remove_model(request: Request, model: str = "") -> Response:
    """Unloads it first; 409 while it answers requests."""
    if not model:
        raise InvalidRequest("Name the model: DELETE /models?model=NAME", param="model")
    manager = _open(context_of(request)).manager
    name = LoadOrder(checked_name(model, manager)).name
    await manager.remove(name)
    return _json(Accepted(name))


@router.post("/models/load", summary="Load a model", openapi_extra=documented_body("/models/load", LoadBody))
async def load_model(request: Request) -> Response:
    """Answers at once; progress is told by /models/sse, a failure also by GET /models."""
    body, headers = await _order(request, LoadBody)
    manager = context_of(request).manager
    order = body.order(manager)
    return await _carry_out(request, body, order.name, lambda: manager.load(order), headers)


@router.post(
    "/models/unload", summary="Unload a model", openapi_extra=documented_body("/models/unload", ModelOrder)
)
async def unload_model(request: Request) -> Response:
    """Gives back its memory, or gives up its load or download; 409 while it answers requests.

    With `wait` it takes no new request from now on, and is unloaded when its open answers have ended; who
    hangs up before that takes the order back.
    """
    order, headers = await _order(request, ModelOrder)
    context = context_of(request)
    name = LoadOrder(checked_name(order.model, context.manager)).name
    unloaded = context.manager.unload(name, waits=order.wait)
    await while_wanted(request, context.lifecycle, unloaded)
    return _json(Accepted(name), headers)


async def _order(request: Request, order_type: type[Order]) -> tuple[Order, dict[str, str]]:
    """The body, and the headers of the answer; raises InvalidRequest, Draining."""
    context = _open(context_of(request))
    # A page of another site can make a browser send text or a form unasked, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest("Send the body as JSON: 'content-type: application/json'.")
    order, ignored = await read_fields(request, order_type, context.config.max_body_bytes)
    return order, ignored_header(ignored)


async def _carry_out(
    request: Request,
    order: ModelOrder,
    name: str,
    work: Callable[[], Awaitable[object]],
    headers: dict[str, str],
) -> Response:
    """Do it before or after the answer, as the order says."""
    context = context_of(request)
    if not order.wait:
        await context.background.start(f"background work on {name}", work)
        return _json(Accepted(name), headers)
    await while_wanted(request, context.lifecycle, work())
    entries = [model_entry(status) for status in context.manager.statuses() if status.id == name]
    return _json(Accepted(name, data=entries[0] if entries else UNSET), headers)


def _open(context: ApiContext) -> ApiContext:
    """The same, unless the daemon is ending."""
    if context.lifecycle.phase == "draining":
        raise Draining(SHUTTING_DOWN)
    return context


def _json(body: Struct, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), headers=headers, media_type="application/json")
