"""The one path from prompt ids to text, whoever asked and in whatever protocol.

Joins engine, detokenizer and stop strings; knows nothing about HTTP. Invariant: a stream ends with
exactly one finish reason or with an OndolError, and however it ends, the engine's stream is closed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import anyio

from ondol.engine.messages import TokenLogprob, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import EngineFailed, OndolError
from ondol.metrics import ABORTED, Metrics
from ondol.model_manager.manager import LoadedModel
from ondol.service.deadline import until_deadline
from ondol.text.stop_strings import StopStringMatcher
from ondol.text.tokenizer import TextTokenizer

TextFinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One choice to generate; everything that is needed to start it again elsewhere.

    Attributes:
        prompt_ids: token ids, BOS included.
        params: the engine's half of the parameters.
        stop: strings that end the text; they are not part of it.
        is_continuation: the text goes on where the prompt ended; keeps a first word's leading space.
        cache_salt: requests share cached prefixes only with equal salts.
        shown_token_ids: special tokens that belong to the text, such as the marks of a tool call.
        deadline_s: time of the event loop's clock at which the choice ends with what is there.
        priority: of those that wait, a lower one is admitted earlier.
    """

    prompt_ids: list[int]
    params: SamplingParams
    stop: tuple[str, ...] = ()
    is_continuation: bool = False
    cache_salt: str = ""
    shown_token_ids: frozenset[int] = frozenset()
    deadline_s: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a choice's time went, in seconds; together, the time from the start to the last token.

    Attributes:
        queue_s: from the start to the first step of the prompt's computation.
        prefill_s: from the first step of the prompt's computation to the first token.
        decode_s: from the first token to the last.
    """

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of one choice.

    Attributes:
        text: may be empty while a character or a possible stop string is still in the making.
        token_ids: tokens since the last delta, also those that show no text, such as the end token.
        finish_reason: set on the last delta only.
        num_cached_tokens: prompt tokens that came from the prefix cache.
        logprobs: one for each of `token_ids` if the request asks for them, also while their text is
            held back; else empty.
        prompt_logprobs: one for each prompt token, None for the first; with the first tokens alone.
        stop_token_id: the end token that ended the choice; it is last in `token_ids` and shows no text.
        queue_position: 1 is the next to be admitted; on deltas without tokens, while the request waits.
        timings: on the last delta.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: TextFinishReason | None = None
    num_cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    stop_token_id: int | None = None
    queue_position: int | None = None
    timings: Timings | None = None


async def stream_text(
    model: LoadedModel, request: GenerationRequest, metrics: Metrics
) -> AsyncGenerator[TextDelta]:
    """Text of one choice as it comes; closing this generator aborts the request in the engine.

    Raises QueueFull before the first delta, EngineFailed when the computation fails.
    """
    text = _TextOfChoice(model.tokenizer, request)
    meter = metrics.start_request(model.name, len(request.prompt_ids))
    outcome = ABORTED
    try:
        last: TextDelta | None = None
        engine_stream = model.engine.generate(
            request.prompt_ids, request.params, cache_salt=request.cache_salt, priority=request.priority
        )
        if request.deadline_s is not None:
            engine_stream = until_deadline(engine_stream, request.deadline_s)
        async with aclosing(engine_stream) as outputs:
            async for output in outputs:
                meter.add_tokens(len(output.token_ids))
                delta = text.push(output)
                if delta.finish_reason is not None:
                    last = delta
                    break
                yield delta
        if last is None:
            raise EngineFailed("The engine ended the request without a reason.")
        # The engine's stream is closed by now: a reader that is slow to take the last delta
        # keeps no blocks.
        outcome = last.finish_reason or ABORTED
        yield last
    except OndolError:
        outcome = "error"
        raise
    finally:
        meter.end(outcome)


async def interleave(streams: Sequence[AsyncGenerator[TextDelta]]) -> AsyncGenerator[tuple[int, TextDelta]]:
    """(index of the stream, delta) of several choices in the order of arrival.

    The first failure ends all; so does closing this generator.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as deltas:
            async for delta in deltas:
                yield 0, delta
        return
    arrivals: asyncio.Queue[tuple[int, TextDelta | None]] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(index, stream, arrivals)) for index, stream in enumerate(streams)]
    num_open = len(pumps)
    try:
        while num_open:
            index, arrival = await arrivals.get()
            if arrival is not None:
                yield index, arrival
            else:
                await pumps[index]
                num_open -= 1
    finally:
        for pump in pumps:
            pump.cancel()
        # anyio repeats a cancellation at every await of its scope; the pumps' own cleanup must not
        # be interrupted by it.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    index: int, stream: AsyncGenerator[TextDelta], arrivals: asyncio.Queue[tuple[int, TextDelta | None]]
) -> None:
    """Puts (index, None) last, however the stream ended; the reader awaits this task for a failure."""
    try:
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                arrivals.put_nowait((index, delta))
    finally:
        arrivals.put_nowait((index, None))


class _TextOfChoice:
    """Token outputs in, text deltas out."""

    def __init__(self, tokenizer: TextTokenizer, request: GenerationRequest) -> None:
        self._detokenizer = tokenizer.detokenizer(
            is_continuation=request.is_continuation, shown_token_ids=request.shown_token_ids
        )
        self._matcher = StopStringMatcher(request.stop)
        self._stopwatch = _Stopwatch()

    def push(self, output: TokenOutput) -> TextDelta:
        if output.finish_reason == "error":
            raise EngineFailed(output.error or "The engine could not go on with this request.")
        token_ids = output.token_ids
        # The end token is a signal, not text, also where the tokenizer does not call it special.
        visible_ids = token_ids if output.stop_token_id is None else token_ids[:-1]
        result = self._matcher.push(self._detokenizer.push(visible_ids))
        text, finish_reason = result.text, output.finish_reason
        if result.stopped is None and finish_reason is not None:
            result = self._matcher.push(self._detokenizer.flush())
            text += result.text
            if result.stopped is None:
                text += self._matcher.flush()
        if result.stopped is not None:
            finish_reason = "stop"
        self._stopwatch.see(output)
        return TextDelta(
            text,
            tuple(token_ids),
            finish_reason,
            output.num_cached_tokens,
            tuple(output.logprobs),
            None if output.prompt_logprobs is None else tuple(output.prompt_logprobs),
            output.stop_token_id,
            output.queue_position,
            None if finish_reason is None else self._stopwatch.timings(),
        )


class _Stopwatch:
    """When a choice's tokens came; the engine tells how long the prompt took."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = self._start_s
        self._prefill_s = 0.0

    def see(self, output: TokenOutput) -> None:
        # The prompt alone has a time too, but no token.
        if not output.token_ids and output.prefill_s is None:
            return
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s
            self._prefill_s = min(output.prefill_s or 0.0, self._first_s - self._start_s)

    def timings(self) -> Timings:
        """A choice without a token has only waited."""
        if self._first_s is None:
            return Timings(time.monotonic() - self._start_s, 0.0, 0.0)
        return Timings(
            queue_s=self._first_s - self._start_s - self._prefill_s,
            prefill_s=self._prefill_s,
            decode_s=self._last_s - self._first_s,
        )
