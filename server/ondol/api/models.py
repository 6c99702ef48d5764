"""GET /v1/models: which models are served.

Knows nothing about loading. Invariant: a name listed here is one that requests may use.
"""

import unicodedata

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ondol.api.answers import ModelCard, ModelList
from ondol.api.context import context_of
from ondol.errors import ModelNotFound
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
    models = context_of(request).manager.served()
    wanted = unicodedata.normalize("NFC", name)
    for model in models:
        if model.name == wanted:
            return _json(_card(model))
    raise ModelNotFound(name, tuple(model.name for model in models))


def _card(model: LoadedModel) -> ModelCard:
    # Clients have no business with the paths of this machine.
    source = {key: value for key, value in model.source.items() if key != "path"}
    return ModelCard(model.name, model.created, model.max_model_len, source)


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
