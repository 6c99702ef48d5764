"""The words of /v1/chat/completions: chunks and whole answers as OpenAI writes them.

Knows nothing about how an answer comes about. Invariant: every chunk of one answer has the same id,
time, model and fingerprint.
"""

import time
from collections.abc import Sequence
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from ondol.api.answers import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    FunctionCall,
    FunctionDelta,
    MessageToolCall,
    ToolCallChunk,
)
from ondol.api.counts import timings_of, usage_of
from ondol.api.fingerprint import system_fingerprint
from ondol.api.generation_fields import GenerationFields
from ondol.api.logprobs import chat_logprobs
from ondol.engine.messages import TokenLogprob
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import ChoiceDelta, FinishReason
from ondol.service.generation import Timings
from ondol.service.whole_answer import Answer, TokenCount, WholeChoice
from ondol.text.tools.calls import ToolCallDelta


class ChatFormat:
    """One chat answer."""

    def __init__(self, model: LoadedModel, fields: GenerationFields, *, shows_logprobs: bool) -> None:
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        self._fields = fields
        self._shows_logprobs = shows_logprobs
        self._fingerprint = system_fingerprint(model)
        self._num_choices = 0
        # With usage asked for, every other chunk says that it has none.
        self._no_usage: UnsetType | None = None if fields.include_usage else UNSET

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Who speaks, once per choice."""
        self._num_choices = num_choices
        delta = ChatDelta(role="assistant", content="")
        return [self._chunk(ChatChunkChoice(index, delta)) for index in range(num_choices)]

    def delta(self, index: int, delta: ChoiceDelta) -> ChatChunk | None:
        """New text, calls, and what is told of their tokens."""
        token_ids = delta.generated.token_ids if self._fields.return_token_ids else UNSET
        logprobs = self._logprobs(delta.shown_logprobs) if delta.shown_logprobs else None
        if not (delta.text or delta.calls or token_ids or logprobs):
            return None
        words = ChatDelta(
            content=UNSET if delta.calls and not delta.text else delta.text,
            tool_calls=[_call_chunk(call) for call in delta.calls] or UNSET,
        )
        return self._chunk(ChatChunkChoice(index, words, logprobs, token_ids=token_ids))

    def finish(self, index: int, reason: FinishReason) -> ChatChunk:
        """The last chunk of a choice."""
        return self._chunk(ChatChunkChoice(index, ChatDelta(), finish_reason=reason))

    def closing(self, count: TokenCount, timings: Timings | None) -> list[msgspec.Struct]:
        """Counts and timings, with no choice at all, as OpenAI sends them."""
        if not (self._fields.include_usage or self._fields.include_timings):
            return []
        chunk = ChatChunk(
            self._id,
            self._created,
            self._model.name,
            self._fingerprint,
            [],
            usage=usage_of(count),
            timings=timings_of(self._fields, count, timings, self._num_choices),
        )
        return [chunk]

    def whole(self, answer: Answer) -> ChatCompletion:
        """The answer without streaming."""
        choices = [self._whole_choice(index, choice) for index, choice in enumerate(answer.choices)]
        return ChatCompletion(
            self._id,
            self._created,
            self._model.name,
            self._fingerprint,
            choices,
            usage_of(answer.count),
            timings=timings_of(self._fields, answer.count, answer.timings, len(choices)),
        )

    def _whole_choice(self, index: int, choice: WholeChoice) -> ChatChoice:
        calls = [
            MessageToolCall(call.call_id, FunctionCall(call.name, call.arguments)) for call in choice.calls
        ]
        return ChatChoice(
            index,
            ChatMessage(None if calls and not choice.text else choice.text, tool_calls=calls or UNSET),
            choice.finish_reason,
            self._logprobs(choice.logprobs),
            choice.token_ids if self._fields.return_token_ids else UNSET,
        )

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> ChatLogprobs | None:
        return chat_logprobs(self._model.tokenizer, logprobs) if self._shows_logprobs else None

    def _chunk(self, choice: ChatChunkChoice) -> ChatChunk:
        return ChatChunk(
            self._id, self._created, self._model.name, self._fingerprint, [choice], usage=self._no_usage
        )


def _call_chunk(call: ToolCallDelta) -> ToolCallChunk:
    if call.call_id is None:
        return ToolCallChunk(call.index, FunctionDelta(arguments=call.arguments))
    return ToolCallChunk(
        call.index, FunctionDelta(call.name or UNSET, call.arguments), call.call_id, "function"
    )
