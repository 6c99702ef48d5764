"""What a request has generated, all at once: its choices, and how many tokens and how much time they took.

Made of the deltas that a stream is made of. Knows nothing about HTTP. Invariant: an answer has all that its
deltas told, or ends with their error.
"""

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from ondol.engine.messages import TokenLogprob
from ondol.errors import EngineFailed
from ondol.metrics import Metrics
from ondol.service.answer import ChoiceDelta, FinishReason, Generation
from ondol.service.generation import TextDelta, Timings
from ondol.text.tools.calls import ToolCallDelta


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
