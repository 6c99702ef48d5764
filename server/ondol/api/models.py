"""GET /v1/models: which models are served. GET /models/info: how one of them is stored and runs.

Knows nothing about loading. Invariant: a name listed here is one that requests may use.
"""

import unicodedata

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ondol.api.answers import KVCacheInfo, ModelCard, ModelInfo, ModelList
from ondol.api.context import context_of
from ondol.errors import InvalidRequest, ModelNotFound
from ondol.model_manager.manager import LoadedModel

router = APIRouter()


@router.get("/v1/models", summary="List the served models")
async def list_models(request: Request) -> Response:
    """OpenAI's list object."""
    models = context_of(request).manager.served()
    return _json(ModelList([_card(model) for model in models]))


@router.get("/v1/models/{name:path}", summary="Describe one served model")
async def retrieve_model(request: Request, name: str) -> Response:
    """OpenAI's model object; names may hold slashes, as Hub ids do."""
    return _json(_card(_served(request, name)))


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
            max_model_len=ready.max_model_len,
            weights_bytes=ready.weights_bytes,
            stored=ready.weights.stored,
            unquantized=ready.weights.unquantized,
            kv_cache=KVCacheInfo(ready.kv_cache_bytes, ready.num_blocks * ready.block_size, ready.block_size),
            load_seconds=ready.load_seconds,
            notes=ready.notes,
        )
    )


def _served(request: Request, name: str) -> LoadedModel:
    models = context_of(request).manager.served()
    wanted = unicodedata.normalize("NFC", name)
    for model in models:
        if model.name == wanted:
            return model
    raise ModelNotFound(name, tuple(model.name for model in models))


def _card(model: LoadedModel) -> ModelCard:
    # Clients have no business with the paths of this machine.
    source = {key: value for key, value in model.source.items() if key != "path"}
    return ModelCard(model.name, model.created, model.max_model_len, source)


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
