"""What a request generates: its choices side by side, as deltas.

Every protocol's answers are made of these: `chat.py` and `completion.py` say what is to be
generated, the front doors say in which words it is told. Knows nothing about HTTP. Invariant: each
choice ends with exactly one finish reason, or the whole answer with an OndolError.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from ondol.engine.messages import TokenLogprob
from ondol.metrics import Metrics
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.generation import GenerationRequest, TextDelta, interleave, stream_text
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
        untried_grammars: what has to compile before anything is computed, by the field that it comes from.
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
    untried_grammars: Mapping[str, str] = field(default_factory=dict)
    spend: Callable[[int], None] = _nothing

    async def check(self) -> None:
        """Raises InvalidRequest if nothing can match one of the grammars."""
        for param, grammar in self.untried_grammars.items():
            await validate_grammar(grammar, param=param)

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
