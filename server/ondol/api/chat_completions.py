"""POST /v1/chat/completions: messages in, an assistant's message out.

Knows the chat body and what its fields ask of the chat service; how an answer comes about is
`api/generate.py`'s. Invariant: every field of OpenAI's is heeded, accepted, named as ignored or
refused, and docs/api.md says which.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field, model_validator
from starlette.responses import Response

from ondol.api.body import OtherField, documented_body
from ondol.api.chat_format import ChatFormat
from ondol.api.generate import Endpoint
from ondol.api.generation_fields import MAX_LOGPROBS, OTHER_FIELDS, GenerationFields
from ondol.api.messages import RequestMessage
from ondol.api.response_format import ResponseFormat
from ondol.api.tools import ToolChoice, Tools, tool_use
from ondol.errors import InvalidRequest
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import Caller, Generation
from ondol.service.chat import ChatTurn, prepare_chat

PATH = "/v1/chat/completions"
MAX_TEMPLATE_ARGUMENTS = 32
# The template's own variables, which the messages and other fields fill.
RESERVED_ARGUMENTS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template"}
)

router = APIRouter()


def _harmless(
    arguments: dict[str, bool | int | float | str | None],
) -> dict[str, bool | int | float | str | None]:
    for name in arguments:
        if name in RESERVED_ARGUMENTS or name.endswith("_token") or not name.isidentifier():
            raise ValueError(f"{name!r:.80} cannot be set this way")
    return arguments


TemplateArguments = Annotated[
    dict[str, bool | int | float | str | None],
    Field(max_length=MAX_TEMPLATE_ARGUMENTS),
    AfterValidator(_harmless),
]
Messages = Annotated[list[RequestMessage], Field(min_length=1, fail_fast=True)]


class TurnFields(GenerationFields):
    """The fields that say what the template renders; /apply-template takes them too."""

    messages: Messages
    tools: Tools | None = Field(None, description="Ignored by models whose template knows no tools.")
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = Field(
        None, description="Whether the template opens the assistant's turn; by default it does."
    )
    continue_final_message: bool | None = Field(
        None, description="The answer goes on inside of the last message, which is the assistant's."
    )
    chat_template_kwargs: TemplateArguments | None = Field(
        None, description="Plain values for the template, such as enable_thinking."
    )

    @model_validator(mode="after")
    def _has_one_end(self) -> "TurnFields":
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other.",
                param="continue_final_message",
            )
        return self

    def turn(self) -> ChatTurn:
        """What is asked of the chat service; blocks on grammars. Raises InvalidRequest."""
        continues = bool(self.continue_final_message)
        if continues and self.messages[-1].role != "assistant":
            raise InvalidRequest(
                "continue_final_message needs a last message of role assistant.",
                param="continue_final_message",
            )
        return ChatTurn(
            messages=tuple(message.for_template() for message in self.messages),
            options=self.sampling_options(),
            num_choices=self.n or 1,
            stop=self.stop_strings,
            tools=tool_use(self.tools, self.tool_choice, is_parallel=self.parallel_tool_calls is not False),
            add_generation_prompt=self.add_generation_prompt is not False and not continues,
            continues_final_message=continues,
            template_arguments=self.chat_template_kwargs or {},
        )


class ChatCompletionRequest(TurnFields):
    """OpenAI's body, with the extensions that local servers share."""

    other_fields: ClassVar[Mapping[str, OtherField]] = {
        **OTHER_FIELDS,
        "modalities": OtherField("refused", "it answers in text only", (None, ["text"])),
        "audio": OtherField("refused", "it answers in text only"),
        "functions": OtherField("ignored", "superseded by tools"),
        "function_call": OtherField("ignored", "superseded by tool_choice"),
        "prediction": OtherField("ignored", "it would save time, not change the answer"),
        "reasoning_effort": OtherField("ignored", "templates take it in chat_template_kwargs"),
        "verbosity": OtherField("ignored", "models here are told in words", (None, "medium")),
        "web_search_options": OtherField("ignored", "there is no web search"),
        "moderation": OtherField("ignored", "there is no moderation"),
    }

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The newer name of max_tokens; wins over it."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = Field(
        None, description='text, json_object, json_schema, and {"type": "regex", "regex": ...}.'
    )

    @model_validator(mode="after")
    def _asks_for_logprobs(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
        return self

    def turn(self) -> ChatTurn:
        """As `TurnFields.turn`, with how the answer's tokens are chosen."""
        newer, older = self.max_completion_tokens, self.max_tokens
        options = self.sampling_options(
            max_tokens=older if newer is None else newer,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            grammar=None if self.response_format is None else self.response_format.grammar(),
        )
        return replace(super().turn(), options=options)


def _prepare(model: LoadedModel, fields: ChatCompletionRequest, caller: Caller) -> Generation:
    return prepare_chat(model, fields.turn(), caller)


def _format(model: LoadedModel, fields: ChatCompletionRequest) -> ChatFormat:
    return ChatFormat(model, fields, shows_logprobs=bool(fields.logprobs))


ENDPOINT = Endpoint(ChatCompletionRequest, _prepare, _format)


@router.post(
    PATH,
    summary="Create a chat completion",
    openapi_extra=documented_body(PATH, ChatCompletionRequest, streams=True),
)
async def create_chat_completion(request: Request) -> Response:
    """OpenAI's chat completions, streamed or whole."""
    return await ENDPOINT.answer(request)
