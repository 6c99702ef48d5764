"""The one way in which every generating endpoint answers, streamed or whole.

An endpoint says what its body means (`Endpoint.prepare`) and in which words it answers
(`AnswerFormat`); admission, leases, disconnects, counting and errors are here. Knows nothing about
messages or prompts. Invariant: a request is refused before the first byte, or ends with a finish
reason for each choice, or with an error event.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import anyio
import msgspec
from fastapi import Request
from msgspec import UNSET
from starlette.responses import Response

from ondol.api.answers import FinishReason, PromptTokensDetails, ReturnedTokenIds, Usage
from ondol.api.body import parse_body, read_body
from ondol.api.context import ApiContext, context_of
from ondol.api.disconnect import until_disconnect
from ondol.api.errors import CLIENT_CLOSED_REQUEST, error_body, internal_error_body
from ondol.api.generation_fields import GenerationFields
from ondol.api.lifecycle import SHUTTING_DOWN
from ondol.api.sse import DONE, EventStream, event
from ondol.errors import Draining, OndolError
from ondol.metrics import Metrics
from ondol.model_manager.manager import LoadedModel
from ondol.service.generation import GenerationRequest, TextDelta, interleave, stream_text

Fields = TypeVar("Fields", bound=GenerationFields)


@dataclass(frozen=True, slots=True)
class WholeChoice:
    """One choice after its end."""

    index: int
    text: str
    finish_reason: FinishReason
    token_ids: ReturnedTokenIds


class AnswerFormat(Protocol):
    """The words of one endpoint; one instance per answer."""

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Chunks before any text."""

    def text(self, index: int, text: str, token_ids: ReturnedTokenIds) -> msgspec.Struct:
        """The chunk that adds text to a choice."""

    def finish(self, index: int, reason: FinishReason) -> msgspec.Struct:
        """The last chunk of a choice."""

    def usage(self, usage: Usage) -> msgspec.Struct:
        """The chunk after all choices."""

    def whole(self, choices: list[WholeChoice], usage: Usage) -> msgspec.Struct:
        """Everything at once."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What is to be generated: one request per choice, in the order of their indices."""

    model: LoadedModel
    requests: tuple[GenerationRequest, ...]
    num_prompt_tokens: int

    def deltas(self, metrics: Metrics) -> AsyncGenerator[tuple[int, TextDelta]]:
        """(index, delta) of all choices as they come."""
        return interleave([stream_text(self.model, request, metrics) for request in self.requests])


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Fields]):
    """What tells one generating endpoint from another.

    `prepare` renders and tokenizes; it runs in a thread, for both take long on long texts.
    """

    fields_type: type[Fields]
    prepare: Callable[[LoadedModel, Fields, str], Generation]
    answer_format: Callable[[LoadedModel, Fields], AnswerFormat]

    async def answer(self, request: Request) -> Response:
        """The route: reads, admits, prepares, then streams or collects."""
        context = context_of(request)
        raw = await read_body(request, context.config.max_body_bytes)
        fields, ignored = parse_body(raw, self.fields_type)
        headers = {"x-ondol-ignored": ", ".join(ignored)} if ignored else {}
        async with AsyncExitStack() as resources:
            resources.enter_context(context.lifecycle.open_request())
            model = await resources.enter_async_context(context.manager.lease(fields.model))
            cache_salt = request.scope.get("state", {}).get("cache_salt", "")
            generation = await asyncio.to_thread(self.prepare, model, fields, cache_salt)
            resources.enter_context(context.admission.admit(model, len(generation.requests)))
            answer_format = self.answer_format(model, fields)
            if not fields.stream:
                return await _whole(request, context, generation, answer_format, fields, headers)
            events = _events(generation, answer_format, context.metrics, fields)
            return EventStream(
                events, resources=resources.pop_all(), lifecycle=context.lifecycle, headers=headers
            )


class UsageCount:
    """Adds up deltas to OpenAI's usage object."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._num_completion_tokens = 0
        self._num_cached_tokens = [0] * len(generation.requests)

    def add(self, index: int, delta: TextDelta) -> None:
        """Count one delta."""
        self._num_completion_tokens += len(delta.token_ids)
        # Further choices find the prompt that the first one has just computed: not a saving that
        # the client's earlier requests made.
        if self._generation.requests[index].params.choice == 0 and delta.num_cached_tokens:
            self._num_cached_tokens[index] = delta.num_cached_tokens

    def total(self) -> Usage:
        """The counts so far."""
        num_prompt_tokens = self._generation.num_prompt_tokens
        return Usage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=self._num_completion_tokens,
            total_tokens=num_prompt_tokens + self._num_completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._num_cached_tokens)),
        )


async def _events(
    generation: Generation, answer_format: AnswerFormat, metrics: Metrics, fields: GenerationFields
) -> AsyncGenerator[bytes]:
    usage = UsageCount(generation)
    try:
        for chunk in answer_format.opening(len(generation.requests)):
            yield event(chunk)
        async with aclosing(generation.deltas(metrics)) as deltas:
            async for index, delta in deltas:
                usage.add(index, delta)
                token_ids = delta.token_ids if fields.return_token_ids else UNSET
                if delta.text or token_ids:
                    yield event(answer_format.text(index, delta.text, token_ids))
                if delta.finish_reason is not None:
                    yield event(answer_format.finish(index, delta.finish_reason))
        if fields.include_usage:
            yield event(answer_format.usage(usage.total()))
        yield DONE
    except OndolError as error:
        yield event(error_body(error))
    except Exception:
        # The status line is long gone; the client hears of our bug here, the log by the server.
        yield event(internal_error_body())
        raise


async def _whole(
    request: Request,
    context: ApiContext,
    generation: Generation,
    answer_format: AnswerFormat,
    fields: GenerationFields,
    headers: Mapping[str, str],
) -> Response:
    """The same deltas, collected; the client's departure or the daemon's end closes them."""
    answer: msgspec.Struct | None = None
    with anyio.CancelScope() as scope, context.lifecycle.cutting(scope):
        collected = _collect(generation, answer_format, context.metrics, fields)
        answer = await until_disconnect(request, scope, collected)
    if answer is not None:
        return Response(msgspec.json.encode(answer), headers=headers, media_type="application/json")
    if context.lifecycle.is_cut:
        raise Draining(SHUTTING_DOWN)
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _collect(
    generation: Generation, answer_format: AnswerFormat, metrics: Metrics, fields: GenerationFields
) -> msgspec.Struct:
    usage = UsageCount(generation)
    token_ids: list[list[int]] = [[] for _ in generation.requests]
    texts: list[list[str]] = [[] for _ in generation.requests]
    reasons: dict[int, FinishReason] = {}
    async with aclosing(generation.deltas(metrics)) as deltas:
        async for index, delta in deltas:
            usage.add(index, delta)
            texts[index].append(delta.text)
            token_ids[index] += delta.token_ids
            if delta.finish_reason is not None:
                reasons[index] = delta.finish_reason
    choices = [
        WholeChoice(index, "".join(parts), reasons[index], tuple(ids) if fields.return_token_ids else UNSET)
        for index, (parts, ids) in enumerate(zip(texts, token_ids, strict=True))
    ]
    return answer_format.whole(choices, usage.total())
