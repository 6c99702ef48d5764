"""POST /tokenize, /detokenize and /apply-template: what a prompt becomes before a model sees it.

Knows nothing about generation. Invariant: the tokens and texts told here are those that the generating
endpoints compute with.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, UnsetType
from pydantic import Field
from starlette.responses import Response

from ondol.api.body import WireModel, documented_body, ignored_header, read_fields
from ondol.api.chat_completions import TurnFields
from ondol.api.context import context_of
from ondol.api.generation_fields import ModelName, TokenId
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.chat import render_turn
from ondol.service.completion import encode_prompt

router = APIRouter()

TOKENIZE, DETOKENIZE, APPLY_TEMPLATE = "/tokenize", "/detokenize", "/apply-template"

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class TokenizeRequest(WireModel):
    """A text; `add_special_tokens`, by default true, puts the model's BOS in front, where it has one."""

    model: ModelName
    prompt: Annotated[str, Field(min_length=1)]
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(WireModel):
    """Token ids."""

    model: ModelName
    tokens: TokenIds


class Tokens(msgspec.Struct, frozen=True):
    """The answer of /tokenize; `token_strs` are the pieces, half a character as its bytes in escapes."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | UnsetType = UNSET


class Prompt(msgspec.Struct, frozen=True):
    """The answer of /detokenize and /apply-template; `count` is in tokens."""

    prompt: str
    count: int


Fields = TypeVar("Fields", bound=TokenizeRequest | DetokenizeRequest | TurnFields)


@router.post(
    TOKENIZE, summary="Tell a text's tokens", openapi_extra=documented_body(TOKENIZE, TokenizeRequest)
)
async def tokenize(request: Request) -> Response:
    """The ids that /v1/completions would compute with."""
    return await _answer(request, TokenizeRequest, _tokenize)


@router.post(
    DETOKENIZE, summary="Tell tokens' text", openapi_extra=documented_body(DETOKENIZE, DetokenizeRequest)
)
async def detokenize(request: Request) -> Response:
    """The visible text of token ids, as an answer would show it."""
    return await _answer(request, DetokenizeRequest, _detokenize)


@router.post(
    APPLY_TEMPLATE, summary="Tell a chat's prompt", openapi_extra=documented_body(APPLY_TEMPLATE, TurnFields)
)
async def apply_template(request: Request) -> Response:
    """The text that the model's chat template makes of a chat body, special tokens included."""
    return await _answer(request, TurnFields, _apply_template)


async def _answer(
    request: Request, fields_type: type[Fields], work: Callable[[LoadedModel, Fields], msgspec.Struct]
) -> Response:
    context = context_of(request)
    fields, ignored = await read_fields(request, fields_type, context.config.max_body_bytes)
    with context.lifecycle.open_request():
        async with context.manager.lease(fields.model) as model:
            body = await asyncio.to_thread(work, model, fields)
    return Response(msgspec.json.encode(body), headers=ignored_header(ignored), media_type="application/json")


def _tokenize(model: LoadedModel, fields: TokenizeRequest) -> Tokens:
    token_ids = encode_prompt(model, fields.prompt, add_special_tokens=fields.add_special_tokens is not False)
    pieces: list[str] | UnsetType = UNSET
    if fields.return_token_strs:
        names = [model.tokenizer.piece_bytes(token_id) for token_id in token_ids]
        pieces = [name.decode("utf-8", errors="backslashreplace") for name in names]
    return Tokens(token_ids, len(token_ids), model.max_model_len, pieces)


def _detokenize(model: LoadedModel, fields: DetokenizeRequest) -> Prompt:
    token_ids = encode_prompt(model, fields.tokens, param="tokens")
    return Prompt(model.tokenizer.decode(token_ids), len(token_ids))


def _apply_template(model: LoadedModel, fields: TurnFields) -> Prompt:
    prompt = render_turn(model, fields.turn())
    return Prompt(prompt.text, len(prompt.token_ids))
