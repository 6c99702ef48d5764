"""The one way in which every generating endpoint answers, streamed or whole.

An endpoint says what its body means (`Endpoint.prepare`) and in which words it answers
(`AnswerFormat`); admission, leases, deadlines, disconnects and errors are here. Knows nothing about
messages or prompts. Invariant: a request is refused before the first byte, or ends with a finish
reason for each choice, or with an error event.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import anyio
import msgspec
from fastapi import Request
from starlette.responses import Response

from ondol.api.body import ignored_header, read_fields
from ondol.api.context import ApiContext, context_of
from ondol.api.disconnect import until_disconnect
from ondol.api.errors import CLIENT_CLOSED_REQUEST, error_body, internal_error_body
from ondol.api.generation_fields import GenerationFields
from ondol.api.lifecycle import SHUTTING_DOWN
from ondol.api.sse import DONE, EventStream, comment, event
from ondol.errors import Draining, InvalidRequest, Loading, OndolError
from ondol.keys.usage import KeyUsage
from ondol.metrics import Metrics
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import Caller, ChoiceDelta, FinishReason, Generation
from ondol.service.generation import Timings
from ondol.service.whole_answer import Answer, TokenCount, collect, slowest

Fields = TypeVar("Fields", bound=GenerationFields)


class AnswerFormat(Protocol):
    """The words of one endpoint; one instance per answer."""

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Chunks before any text."""

    def delta(self, index: int, delta: ChoiceDelta) -> msgspec.Struct | None:
        """The chunk that adds to a choice; None if there is nothing to tell yet."""

    def finish(self, index: int, reason: FinishReason) -> msgspec.Struct:
        """The last chunk of a choice."""

    def closing(self, count: TokenCount, timings: Timings | None) -> list[msgspec.Struct]:
        """Chunks after all choices."""

    def whole(self, answer: Answer) -> msgspec.Struct:
        """Everything at once."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Fields]):
    """What tells one generating endpoint from another.

    `prepare` renders and tokenizes; it runs in a thread, for both take long on long texts.
    """

    fields_type: type[Fields]
    prepare: Callable[[LoadedModel, Fields, Caller], Generation]
    answer_format: Callable[[LoadedModel, Fields], AnswerFormat]

    async def answer(self, request: Request) -> Response:
        """The route: reads, admits, prepares, then streams or collects."""
        arrival_s = asyncio.get_running_loop().time()
        context = context_of(request)
        fields, ignored = await read_fields(request, self.fields_type, context.config.max_body_bytes)
        caller = _caller(request, fields, arrival_s)
        async with AsyncExitStack() as resources:
            resources.enter_context(context.lifecycle.open_request())
            model = await _lease(context, fields, caller, resources)
            generation = await asyncio.to_thread(self.prepare, model, fields, caller)
            await generation.check()
            key_usage = request.scope.get("state", {}).get("key_usage")
            if key_usage is not None:
                generation = replace(generation, spend=key_usage.spend)
            resources.enter_context(context.admission.admit(model, len(generation.requests)))
            answer_format = self.answer_format(model, fields)
            headers = ignored_header({*ignored, *generation.ignored})
            if not fields.stream:
                return await _whole(request, context, generation, answer_format, headers)
            events = _events(generation, answer_format, context.metrics)
            return EventStream(
                events, resources=resources.pop_all(), lifecycle=context.lifecycle, headers=headers
            )


def _caller(request: Request, fields: GenerationFields, arrival_s: float) -> Caller:
    """Raises InvalidRequest for a priority that the key does not allow."""
    state = request.scope.get("state", {})
    key_usage: KeyUsage | None = state.get("key_usage")
    lowest = None if key_usage is None else key_usage.limits.min_priority
    priority = fields.priority
    if priority is None:
        priority = max(0, lowest or 0)
    elif lowest is not None and priority < lowest:
        raise InvalidRequest(
            f"This API key allows no priority below {lowest}. Raise it or leave it out.", param="priority"
        )
    deadline_s = None if fields.deadline_s is None else arrival_s + fields.deadline_s
    return Caller(state.get("cache_salt", ""), deadline_s, priority)


async def _lease(
    context: ApiContext, fields: GenerationFields, caller: Caller, resources: AsyncExitStack
) -> LoadedModel:
    """The model, once it is loaded; a deadline does not wait for that longer than it has time."""
    lease = context.manager.lease(fields.model, keep_alive_s=fields.keep_alive)
    try:
        async with asyncio.timeout_at(caller.deadline_s):
            return await resources.enter_async_context(lease)
    except TimeoutError:
        raise Loading(
            f"The model was not ready within deadline_s. Retry after {Loading.retry_after_s} s."
        ) from None


async def _events(
    generation: Generation, answer_format: AnswerFormat, metrics: Metrics
) -> AsyncGenerator[bytes]:
    count = TokenCount(generation)
    timings: list[Timings | None] = []
    try:
        for chunk in answer_format.opening(len(generation.requests)):
            yield event(chunk)
        async with aclosing(generation.deltas(metrics)) as deltas:
            async for index, delta in deltas:
                count.add(index, delta.generated)
                if delta.generated.queue_position is not None:
                    yield comment(f"queued {delta.generated.queue_position}")
                elif (addition := answer_format.delta(index, delta)) is not None:
                    yield event(addition)
                if delta.finish_reason is not None:
                    timings.append(delta.generated.timings)
                    yield event(answer_format.finish(index, delta.finish_reason))
        for chunk in answer_format.closing(count, slowest(timings)):
            yield event(chunk)
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
    headers: Mapping[str, str],
) -> Response:
    """The same deltas, collected; the client's departure or the daemon's end closes them."""
    answer: Answer | None = None
    with anyio.CancelScope() as scope, context.lifecycle.cutting(scope):
        answer = await until_disconnect(request, scope, collect(generation, context.metrics))
    if answer is not None:
        body = msgspec.json.encode(answer_format.whole(answer))
        return Response(body, headers=headers, media_type="application/json")
    if context.lifecycle.is_cut:
        raise Draining(SHUTTING_DOWN)
    return Response(status_code=CLIENT_CLOSED_REQUEST)
