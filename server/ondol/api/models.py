"""GET /v1/models: which models requests may name. GET /models/info: how one of them is stored and runs.

Knows nothing about loading. Invariant: a name listed here is one that requests may use.
"""

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ondol.api.answers import KVCacheInfo, ModelCard, ModelInfo, ModelList
from ondol.api.context import context_of
from ondol.api.model_status import StatusObject, status_object, without_paths
from ondol.errors import InvalidRequest, ModelNotFound
from ondol.model_manager.load_order import normalized
from ondol.model_manager.loaded_model import LoadedModel
from ondol.model_manager.manager import ModelManager

router = APIRouter()


@router.get("/v1/models", summary="List the models that requests may name")
async def list_models(request: Request) -> Response:
    """OpenAI's list object: exactly the names that a request may use now."""
    return _json(ModelList(await _cards(context_of(request).manager)))


@router.get("/v1/models/{name:path}", summary="Describe one model that requests may name")
async def retrieve_model(request: Request, name: str) -> Response:
    """OpenAI's model object; names may hold slashes, as Hub ids do."""
    cards = await _cards(context_of(request).manager)
    wanted = normalized(name)
    for card in cards:
        if card.id == wanted:
            return _json(card)
    raise ModelNotFound(name, tuple(card.id for card in cards))


@router.get("/models/info", summary="Tell how a served model is stored and runs")
async def model_info(request: Request, model: str | None = None) -> Response:
    """Weights by kind with real bits per weight, what stayed unquantized, device and KV cache."""
    if not model:
        raise InvalidRequest("Name the model: /models/info?model=NAME", param="model")
    served = _served(request, model)
    ready = served.engine.ready
    return _json(
        ModelInfo(
            id=served.name,
            device=ready.device,
            dtype=ready.dtype,
            deterministic=ready.deterministic,
            max_model_len=ready.max_model_len,
            weights_bytes=ready.weights_bytes,
            host_weights_bytes=ready.host_weights_bytes,
            stored=ready.weights.stored,
            unquantized=ready.weights.unquantized,
            kv_cache=KVCacheInfo(
                num_bytes=ready.kv_cache_bytes,
                num_tokens=ready.num_blocks * ready.block_size,
                block_size=ready.block_size,
                dtype=ready.kv_cache_dtype,
            ),
            load_seconds=ready.load_seconds,
            notes=ready.notes,
        )
    )


def _served(request: Request, name: str) -> LoadedModel:
    manager = context_of(request).manager
    models = manager.served()
    wanted = normalized(name)
    for model in models:
        if model.name == wanted:
            return model
    if any(status.id == wanted for status in manager.statuses()):
        raise InvalidRequest(
            f"The model '{name}' is not loaded; load it first.", param="model", code="model_not_loaded"
        )
    raise ModelNotFound(name, tuple(model.name for model in models))


async def _cards(manager: ModelManager) -> list[ModelCard]:
    await manager.refresh()
    statuses = {status.id: status_object(status) for status in manager.statuses()}
    return [
        ModelCard(
            model.name,
            model.created,
            model.max_model_len,
            without_paths(model.source),
            statuses.get(model.name, StatusObject("unloaded")),
        )
        for model in manager.nameable()
    ]


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
