"""POST /v1/chat/completions: messages in, an assistant's message out.

Knows the chat body and its answer; how an answer comes about is `api/generate.py`'s. Invariant: the
model's own template writes the prompt, special tokens included.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, UnsetType
from pydantic import Field, model_validator
from starlette.responses import Response

from ondol.api.answers import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    FinishReason,
    ReturnedTokenIds,
    Usage,
)
from ondol.api.body import documented_body
from ondol.api.fingerprint import system_fingerprint
from ondol.api.generate import Endpoint, Generation, WholeChoice
from ondol.api.generation_fields import GenerationFields, WireModel, check_text_size
from ondol.errors import InvalidRequest
from ondol.model_manager.manager import LoadedModel
from ondol.service.generation import GenerationRequest

PATH = "/v1/chat/completions"

router = APIRouter()


class TextPart(WireModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class RequestMessage(WireModel):
    """One message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _has_content(self) -> "RequestMessage":
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content is required in a message of role {self.role}")
        return self

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it: content is one string, "developer" is called "system"."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            # Not None: templates that trim it would print the word.
            "content": content or "",
        }
        extras = {"name": self.name, "tool_calls": self.tool_calls, "tool_call_id": self.tool_call_id}
        return message | {key: value for key, value in extras.items() if value is not None}


class ChatCompletionRequest(GenerationFields):
    """OpenAI's body, with vLLM's sampling extensions."""

    messages: Annotated[list[RequestMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def asked_max_tokens(self) -> int | None:
        """`max_completion_tokens` is the newer name and wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class ChatFormat:
    """Words of one chat answer."""

    def __init__(self, model: LoadedModel, fields: ChatCompletionRequest) -> None:
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._fingerprint = system_fingerprint(model)
        # With usage asked for, every other chunk says that it has none.
        self._no_usage: UnsetType | None = None if fields.include_usage else UNSET

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Who speaks, once per choice."""
        delta = ChatDelta(role="assistant", content="")
        return [self._chunk(ChatChunkChoice(index, delta)) for index in range(num_choices)]

    def text(self, index: int, text: str, token_ids: ReturnedTokenIds) -> ChatChunk:
        """The chunk that adds text to a choice."""
        return self._chunk(ChatChunkChoice(index, ChatDelta(content=text), token_ids=token_ids))

    def finish(self, index: int, reason: FinishReason) -> ChatChunk:
        """The last chunk of a choice."""
        return self._chunk(ChatChunkChoice(index, ChatDelta(), finish_reason=reason))

    def usage(self, usage: Usage) -> ChatChunk:
        """Counts, with no choice at all, as OpenAI sends them."""
        return ChatChunk(self._id, self._created, self._model, self._fingerprint, [], usage=usage)

    def whole(self, choices: list[WholeChoice], usage: Usage) -> ChatCompletion:
        """The answer without streaming."""
        messages = [
            ChatChoice(
                choice.index, ChatMessage(choice.text), choice.finish_reason, token_ids=choice.token_ids
            )
            for choice in choices
        ]
        return ChatCompletion(self._id, self._created, self._model, self._fingerprint, messages, usage)

    def _chunk(self, choice: ChatChunkChoice) -> ChatChunk:
        return ChatChunk(
            self._id, self._created, self._model, self._fingerprint, [choice], usage=self._no_usage
        )


def prepare_chat(model: LoadedModel, fields: ChatCompletionRequest, cache_salt: str) -> Generation:
    """Render, tokenize and check one chat body; blocks, so call it in a thread."""
    messages: list[Mapping[str, Any]] = [message.for_template() for message in fields.messages]
    text = model.tokenizer.render_chat(messages)
    check_text_size(text, model.max_model_len, "messages")
    prompt_ids = model.tokenizer.encode_rendered(text)
    if not prompt_ids:
        raise InvalidRequest("The messages make an empty prompt.", param="messages")
    params = fields.sampling_params(model, len(prompt_ids), "messages")
    requests = tuple(
        GenerationRequest(
            prompt_ids=prompt_ids,
            params=msgspec.structs.replace(params, choice=choice),
            stop=fields.stop_strings,
            cache_salt=cache_salt,
        )
        for choice in range(fields.n or 1)
    )
    return Generation(model, requests, len(prompt_ids))


ENDPOINT = Endpoint(ChatCompletionRequest, prepare_chat, ChatFormat)
DOCUMENTED_BODY = documented_body(PATH, ChatCompletionRequest)


@router.post(
    PATH, summary="Create a chat completion", openapi_extra=documented_body(PATH, ChatCompletionRequest)
)
async def create_chat_completion(request: Request) -> Response:
    """OpenAI's chat completions, streamed or whole."""
    return await ENDPOINT.answer(request)
