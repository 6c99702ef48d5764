"""POST /v1/completions: plain prompts in, their continuations out.

Knows the completions body and its answer; how an answer comes about is `api/generate.py`'s.
Invariant: text prompts are tokenized with the model's special tokens, token ids are taken as they are.
"""

import time
from typing import Annotated
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, UnsetType
from pydantic import Field
from starlette.responses import Response

from ondol.api.answers import FinishReason, ReturnedTokenIds, TextChoice, TextCompletion, Usage
from ondol.api.body import documented_body
from ondol.api.fingerprint import system_fingerprint
from ondol.api.generate import Endpoint, Generation, WholeChoice
from ondol.api.generation_fields import GenerationFields, TokenId, check_text_size, check_token_ids
from ondol.errors import InvalidRequest, PromptTooLong
from ondol.model_manager.manager import LoadedModel
from ondol.service.generation import GenerationRequest

MAX_PROMPTS = 64

PATH = "/v1/completions"

router = APIRouter()

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
TokenIdLists = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]


class CompletionRequest(GenerationFields):
    """OpenAI's body, with vLLM's sampling extensions."""

    prompt: str | Texts | TokenIds | TokenIdLists


class CompletionFormat:
    """Words of one text completion; chunks and the whole share one shape."""

    def __init__(self, model: LoadedModel, fields: CompletionRequest) -> None:
        self._id = f"cmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._fingerprint = system_fingerprint(model)
        self._no_usage: UnsetType | None = None if fields.include_usage else UNSET

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Nothing: text completions have no roles."""
        return []

    def text(self, index: int, text: str, token_ids: ReturnedTokenIds) -> TextCompletion:
        """The chunk that adds text to a choice."""
        return self._completion([TextChoice(index, text, token_ids=token_ids)], self._no_usage)

    def finish(self, index: int, reason: FinishReason) -> TextCompletion:
        """The last chunk of a choice."""
        return self._completion([TextChoice(index, "", finish_reason=reason)], self._no_usage)

    def usage(self, usage: Usage) -> TextCompletion:
        """Counts, with no choice at all, as OpenAI sends them."""
        return self._completion([], usage)

    def whole(self, choices: list[WholeChoice], usage: Usage) -> TextCompletion:
        """The answer without streaming."""
        texts = [
            TextChoice(
                choice.index, choice.text, finish_reason=choice.finish_reason, token_ids=choice.token_ids
            )
            for choice in choices
        ]
        return self._completion(texts, usage)

    def _completion(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> TextCompletion:
        return TextCompletion(self._id, self._created, self._model, self._fingerprint, choices, usage=usage)


def prepare_completion(model: LoadedModel, fields: CompletionRequest, cache_salt: str) -> Generation:
    """Tokenize and check every prompt; blocks, so call it in a thread."""
    prompts = _prompts(fields.prompt)
    num_choices = fields.n or 1
    requests: list[GenerationRequest] = []
    num_prompt_tokens = 0
    for prompt in prompts:
        prompt_ids = _prompt_ids(model, prompt)
        num_prompt_tokens += len(prompt_ids)
        params = fields.sampling_params(model, len(prompt_ids), "prompt")
        requests += [
            GenerationRequest(
                prompt_ids=prompt_ids,
                params=msgspec.structs.replace(params, choice=choice),
                stop=fields.stop_strings,
                is_continuation=True,
                cache_salt=cache_salt,
            )
            for choice in range(num_choices)
        ]
    return Generation(model, tuple(requests), num_prompt_tokens)


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    token_ids = [part for part in prompt if isinstance(part, int)]
    if token_ids:
        return [token_ids]
    return [part for part in prompt if not isinstance(part, int)]


def _prompt_ids(model: LoadedModel, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        check_text_size(prompt, model.max_model_len, "prompt")
        prompt_ids = model.tokenizer.encode_text(prompt)
    else:
        # First the length, so that a huge list is not looked through.
        if len(prompt) >= model.max_model_len:
            raise PromptTooLong(len(prompt), model.max_model_len, param="prompt")
        check_token_ids(prompt, model.vocab_size, "prompt")
        prompt_ids = prompt
    if not prompt_ids:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    return prompt_ids


ENDPOINT = Endpoint(CompletionRequest, prepare_completion, CompletionFormat)
DOCUMENTED_BODY = documented_body(PATH, CompletionRequest)


@router.post(PATH, summary="Create a text completion", openapi_extra=DOCUMENTED_BODY)
async def create_completion(request: Request) -> Response:
    """OpenAI's text completions, streamed or whole."""
    return await ENDPOINT.answer(request)
