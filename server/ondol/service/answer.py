"""What a request generates: its choices side by side, as deltas or collected.

Every protocol's answers are made of these: `chat.py` and `completion.py` say what is to be
generated, the front doors say in which words it is told. Knows nothing about HTTP. Invariant: each
choice ends with exactly one finish reason, or the whole answer with an OndolError.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from ondol.engine.messages import TokenLogprob
from ondol.errors import EngineFailed
from ondol.metrics import Metrics
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.generation import GenerationRequest, TextDelta, Timings, interleave, stream_text
from ondol.text.structured_output import validate_grammar
from ondol.text.tools.calls import ToolCallDelta, ToolCallParser

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is, how urgent, and until when it makes sense.

    Attributes:
        cache_salt: requests share cached prefixes only with equal salts.
        deadline_s: time of the event loop's clock at which to end with what is there.
        priority: lower is earlier.
    """

    cache_salt: str = ""
    deadline_s: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """What is new of one choice.

    Attributes:
        text: without what became tool calls.
        calls: pieces of tool calls.
        finish_reason: on the last delta only.
        generated: the tokens behind it, with their log-probabilities and timings.
        prompt_text, prompt_ids: the prompt, on the first delta of a request that echoes it.
    """

    text: str
    calls: tuple[ToolCallDelta, ...]
    finish_reason: FinishReason | None
    generated: TextDelta
    prompt_text: str = ""
    prompt_ids: Sequence[int] = ()

    @property
    def shown_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of the tokens that are text, without the one that ended it."""
        generated = self.generated
        return generated.logprobs if generated.stop_token_id is None else generated.logprobs[:-1]


def _nothing(num_tokens: int) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What is to be generated: one request per choice, in the order of their indices.

    Attributes:
        requests: one per choice.
        num_prompt_tokens: over all prompts, each counted once.
        prompt_texts: one per request if the answer begins with its prompt, else empty.
        num_kept: of each run of `num_candidates` choices, how many the answer shows, best first.
        new_parser: reads tool calls out of one choice's text.
        ignored: names of what was asked for and this model cannot do.
        untried_grammar: what has to compile before anything is computed.
        grammar_param: the field that it comes from.
        spend: told of tokens as they are used, those of the prompt first.
    """

    model: LoadedModel
    requests: tuple[GenerationRequest, ...]
    num_prompt_tokens: int
    prompt_texts: tuple[str, ...] = ()
    num_candidates: int = 1
    num_kept: int = 1
    new_parser: Callable[[], ToolCallParser] | None = None
    ignored: tuple[str, ...] = ()
    untried_grammar: str | None = None
    grammar_param: str = "response_format"
    spend: Callable[[int], None] = _nothing

    async def check(self) -> None:
        """Raises InvalidRequest if nothing can match the grammar."""
        if self.untried_grammar is not None:
            await validate_grammar(self.untried_grammar, param=self.grammar_param)

    async def deltas(self, metrics: Metrics) -> AsyncGenerator[tuple[int, ChoiceDelta]]:
        """(index, delta) of all choices as they come; closing this ends them all."""
        prompt_texts = self.prompt_texts or ("",) * len(self.requests)
        readers = [
            _ChoiceReader(self.new_parser, prompt_text, request.prompt_ids if self.prompt_texts else ())
            for request, prompt_text in zip(self.requests, prompt_texts, strict=True)
        ]
        streams = [stream_text(self.model, request, metrics) for request in self.requests]
        self.spend(self.num_prompt_tokens)
        async with aclosing(interleave(streams)) as arrivals:
            async for index, delta in arrivals:
                self.spend(len(delta.token_ids))
                yield index, readers[index].read(delta)


class TokenCount:
    """Tokens of one request, counted as deltas pass by."""

    def __init__(self, generation: Generation) -> None:
        self._requests = generation.requests
        self._num_cached = [0] * len(generation.requests)
        self.num_prompt = generation.num_prompt_tokens
        self.num_completion = 0

    @property
    def num_cached(self) -> int:
        """Prompt tokens that came from the prefix cache."""
        return sum(self._num_cached)

    def add(self, index: int, delta: TextDelta) -> None:
        """Count one delta."""
        self.num_completion += len(delta.token_ids)
        # Further choices find the prompt that the first one has just computed: not a saving that
        # the client's earlier requests made.
        if self._requests[index].params.choice == 0 and delta.num_cached_tokens:
            self._num_cached[index] = delta.num_cached_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One whole call; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class WholeChoice:
    """One choice after its end; fields as in `ChoiceDelta` and `TextDelta`.

    `mean_logprob` is over all generated tokens, the end token included; of none, 0.
    """

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: tuple[TokenLogprob | None, ...]
    prompt_text: str
    prompt_ids: Sequence[int]
    mean_logprob: float
    timings: Timings | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything at once: the choices to show, in order, and the tokens of all that were generated."""

    choices: tuple[WholeChoice, ...]
    count: TokenCount
    timings: Timings | None


async def collect(generation: Generation, metrics: Metrics) -> Answer:
    """The same deltas, whole."""
    count = TokenCount(generation)
    collectors = [_ChoiceCollector() for _ in generation.requests]
    async with aclosing(generation.deltas(metrics)) as deltas:
        async for index, delta in deltas:
            count.add(index, delta.generated)
            collectors[index].add(delta)
    choices = [collector.whole() for collector in collectors]
    return Answer(_best(choices, generation), count, slowest(choice.timings for choice in choices))


def slowest(timings: Iterable[Timings | None]) -> Timings | None:
    """Of choices that ran side by side, each stage as the slowest one met it."""
    known = [timing for timing in timings if timing is not None]
    if not known:
        return None
    return Timings(
        queue_s=max(timing.queue_s for timing in known),
        prefill_s=max(timing.prefill_s for timing in known),
        decode_s=max(timing.decode_s for timing in known),
    )


def _best(choices: Sequence[WholeChoice], generation: Generation) -> tuple[WholeChoice, ...]:
    num_candidates, num_kept = generation.num_candidates, generation.num_kept
    if num_candidates == num_kept:
        return tuple(choices)
    kept: list[WholeChoice] = []
    for start in range(0, len(choices), num_candidates):
        candidates = choices[start : start + num_candidates]
        kept += sorted(candidates, key=lambda choice: -choice.mean_logprob)[:num_kept]
    return tuple(kept)


class _ChoiceReader:
    """Text deltas of one choice in, choice deltas out."""

    def __init__(
        self, new_parser: Callable[[], ToolCallParser] | None, prompt_text: str, prompt_ids: Sequence[int]
    ) -> None:
        self._parser = None if new_parser is None else new_parser()
        self._prompt_text = prompt_text
        self._prompt_ids = prompt_ids
        self._has_called = False

    def read(self, delta: TextDelta) -> ChoiceDelta:
        if delta.queue_position is not None:
            return ChoiceDelta("", (), None, delta)
        prompt_text, self._prompt_text = self._prompt_text, ""
        prompt_ids, self._prompt_ids = self._prompt_ids, ()
        text, calls = self._parse(delta)
        has_called = delta.finish_reason == "stop" and self._has_called
        finish_reason: FinishReason | None = "tool_calls" if has_called else delta.finish_reason
        return ChoiceDelta(text, calls, finish_reason, delta, prompt_text, prompt_ids)

    def _parse(self, delta: TextDelta) -> tuple[str, tuple[ToolCallDelta, ...]]:
        if self._parser is None:
            return delta.text, ()
        parsed = self._parser.push(delta.text)
        text, calls = parsed.text, parsed.calls
        if delta.finish_reason is not None:
            rest = self._parser.flush()
            text, calls = text + rest.text, calls + rest.calls
        self._has_called = self._has_called or bool(calls)
        return text, calls


@dataclass(slots=True)
class _ChoiceCollector:
    """Choice deltas in, the whole choice out."""

    _texts: list[str] = field(default_factory=list)
    _calls: list[ToolCall] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)
    _prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    _prompt_text: str = ""
    _prompt_ids: Sequence[int] = ()
    _sum_logprobs: float = 0.0
    _last: ChoiceDelta | None = None

    def add(self, delta: ChoiceDelta) -> None:
        generated = delta.generated
        self._texts.append(delta.text)
        self._token_ids += generated.token_ids
        self._logprobs += delta.shown_logprobs
        self._sum_logprobs += sum(token.logprob for token in generated.logprobs)
        self._prompt_text += delta.prompt_text
        self._prompt_ids = self._prompt_ids or delta.prompt_ids
        if generated.prompt_logprobs is not None:
            self._prompt_logprobs = generated.prompt_logprobs
        for piece in delta.calls:
            self._add_call(piece)
        self._last = delta

    def whole(self) -> WholeChoice:
        last = self._last
        if last is None or last.finish_reason is None:
            raise EngineFailed("The engine ended the request without a reason.")
        return WholeChoice(
            text="".join(self._texts),
            calls=tuple(self._calls),
            finish_reason=last.finish_reason,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            prompt_logprobs=self._prompt_logprobs,
            prompt_text=self._prompt_text,
            prompt_ids=self._prompt_ids,
            mean_logprob=self._sum_logprobs / max(1, len(self._token_ids)),
            timings=last.generated.timings,
        )

    def _add_call(self, piece: ToolCallDelta) -> None:
        if piece.index == len(self._calls):
            self._calls.append(ToolCall(piece.call_id or "", piece.name or "", piece.arguments))
            return
        call = self._calls[piece.index]
        self._calls[piece.index] = replace(call, arguments=call.arguments + piece.arguments)
