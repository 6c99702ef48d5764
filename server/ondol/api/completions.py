"""POST /v1/completions: plain prompts in, their continuations out.

Knows the completions body and what its fields ask of the completion service; how an answer comes
about is `api/generate.py`'s. Invariant: a text prompt is one prompt and a list of numbers is one
prompt; only lists of texts or of lists are several.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from ondol.api.body import OtherField, documented_body
from ondol.api.completion_format import CompletionFormat
from ondol.api.generate import Endpoint
from ondol.api.generation_fields import MAX_CHOICES, MAX_LOGPROBS, OTHER_FIELDS, GenerationFields, TokenId
from ondol.errors import InvalidRequest
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import Caller, Generation
from ondol.service.completion import PromptBatch, prepare_completion

MAX_PROMPTS = 64
MAX_CANDIDATES = 20
DEFAULT_MAX_TOKENS = 16

PATH = "/v1/completions"

router = APIRouter()

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
TokenIdLists = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]


class CompletionRequest(GenerationFields):
    """OpenAI's body, with the extensions that local servers share."""

    other_fields: ClassVar[Mapping[str, OtherField]] = {
        **OTHER_FIELDS,
        "suffix": OtherField("refused", "it continues texts and does not fill gaps", (None, "")),
    }

    prompt: str | Texts | TokenIds | TokenIdLists
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description=f"By default {DEFAULT_MAX_TOKENS}; 0 needs echo and scores the prompt."
    )
    best_of: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] | None = Field(
        None, description="Generates so many and returns the n likeliest; cannot be streamed."
    )
    echo: bool | None = Field(None, description="The prompt comes first, with logprobs if asked for.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "CompletionRequest":
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest("max_tokens 0 needs echo: the answer would be empty.", param="max_tokens")
        return self

    def batch(self) -> PromptBatch:
        """What is asked of the completion service. Raises InvalidRequest."""
        num_choices = self.n or 1
        num_candidates = self.best_of or num_choices
        if num_candidates < num_choices:
            raise InvalidRequest(f"best_of is {num_candidates}, less than n.", param="best_of")
        if num_candidates > num_choices and self.stream:
            raise InvalidRequest("The best of several cannot be streamed.", param="best_of")
        prompts = self.prompts
        if len(prompts) * num_candidates > MAX_CHOICES:
            raise InvalidRequest(
                f"{len(prompts)} prompts with {num_candidates} choices each are more than {MAX_CHOICES}.",
                param="prompt",
            )
        return PromptBatch(
            prompts=prompts,
            options=self.sampling_options(default_max_tokens=DEFAULT_MAX_TOKENS, logprobs=self.logprobs),
            num_choices=num_choices,
            num_candidates=num_candidates,
            stop=self.stop_strings,
            echoes=bool(self.echo),
        )

    @property
    def prompts(self) -> list[str | list[int]]:
        """`prompt` as a list, whichever way it was written."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        token_ids = [part for part in prompt if isinstance(part, int)]
        if token_ids:
            return [token_ids]
        return [part for part in prompt if not isinstance(part, int)]


def _prepare(model: LoadedModel, fields: CompletionRequest, caller: Caller) -> Generation:
    return prepare_completion(model, fields.batch(), caller)


def _format(model: LoadedModel, fields: CompletionRequest) -> CompletionFormat:
    return CompletionFormat(
        model, fields, shows_logprobs=fields.logprobs is not None, echoes=bool(fields.echo)
    )


ENDPOINT = Endpoint(CompletionRequest, _prepare, _format)


@router.post(
    PATH,
    summary="Create a text completion",
    openapi_extra=documented_body(PATH, CompletionRequest, streams=True),
)
async def create_completion(request: Request) -> Response:
    """OpenAI's text completions, streamed or whole."""
    return await ENDPOINT.answer(request)
