"""A model without a model: an engine whose tokens the test hands out, behind a real tokenizer.

`FakeEngine` keeps EngineClient's contract — admission, streams that register while they run, abort on
close, death — and `FakeManager` keeps ModelManager's leases, and counts them.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ondol.engine.messages import EngineReady, EngineStats, FinishReason, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import EngineFailed, ModelNotFound, QueueFull
from ondol.text.tokenizer import TextTokenizer

READY = EngineReady(
    device="cpu",
    dtype="float32",
    max_model_len=256,
    vocab_size=512,
    max_num_batched_tokens=128,
    block_size=16,
    num_blocks=64,
    weights_bytes=1,
    kv_cache_bytes=1,
    load_seconds=0.0,
)


@dataclass
class FakeCall:
    """One request as the engine saw it; the test feeds its outputs."""

    prompt_ids: list[int]
    params: SamplingParams
    cache_salt: str
    outputs: asyncio.Queue[TokenOutput | None] = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    was_aborted: bool = False
    num_fed: int = 0

    def feed(
        self,
        token_ids: Sequence[int],
        finish_reason: FinishReason | None = None,
        *,
        stop_token_id: int | None = None,
        num_cached_tokens: int = 0,
        error: str | None = None,
    ) -> None:
        """Hand out one engine step's tokens."""
        self.outputs.put_nowait(
            TokenOutput(
                request_id="r",
                first_index=self.num_fed,
                token_ids=list(token_ids),
                finish_reason=finish_reason,
                stop_token_id=stop_token_id,
                num_cached_tokens=num_cached_tokens,
                error=error,
            )
        )
        self.num_fed += len(token_ids)


class FakeEngine:
    """`script`, when set, is called with each new request and usually feeds it at once."""

    def __init__(self, *, max_open: int = 64) -> None:
        self.ready = READY
        self.stats = EngineStats(num_blocks=64)
        self.failure: str | None = None
        self.calls: list[FakeCall] = []
        self.num_open = 0
        self.script: Callable[[FakeCall], None] | None = None
        self._max_open = max_open
        self._arrived = asyncio.Condition()

    @property
    def is_alive(self) -> bool:
        return self.failure is None

    def check_admission(self, num_requests: int = 1) -> None:
        if self.failure is not None:
            raise EngineFailed(self.failure)
        if self.num_open + num_requests > self._max_open:
            raise QueueFull(2)

    async def generate(
        self, prompt_ids: list[int], params: SamplingParams, *, cache_salt: str = ""
    ) -> AsyncGenerator[TokenOutput, None]:
        self.check_admission()
        call = FakeCall(prompt_ids, params, cache_salt)
        self.calls.append(call)
        self.num_open += 1
        finished = False
        try:
            async with self._arrived:
                self._arrived.notify_all()
            if self.script is not None:
                self.script(call)
            while not finished:
                output = await call.outputs.get()
                if output is None:
                    raise EngineFailed(self.failure or "the engine process died")
                if output.error is not None:
                    raise EngineFailed(output.error)
                finished = output.finish_reason is not None
                yield output
        finally:
            self.num_open -= 1
            call.was_aborted = not finished
            call.closed.set()

    async def call(self, index: int = 0) -> FakeCall:
        """The index-th request, once it has arrived."""
        async with self._arrived, asyncio.timeout(10):
            await self._arrived.wait_for(lambda: len(self.calls) > index)
        return self.calls[index]

    def die(self, failure: str = "the engine process was killed by SIGKILL") -> None:
        """What clients of a killed engine see."""
        self.failure = failure
        for call in self.calls:
            call.outputs.put_nowait(None)


@dataclass(frozen=True)
class FakeDefaults:
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class FakeModel:
    """Has LoadedModel's fields."""

    name: str
    tokenizer: TextTokenizer
    engine: FakeEngine
    max_model_len: int = 256
    vocab_size: int = READY.vocab_size
    defaults: FakeDefaults = field(default_factory=FakeDefaults)
    created: int = 1_700_000_000
    source: dict[str, str] = field(default_factory=lambda: {"kind": "folder", "path": "/secret"})


class FakeManager:
    """Serves the given models; `num_leases` counts who holds one now."""

    def __init__(self, *models: FakeModel) -> None:
        self.models = models
        self.num_leases = 0

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[FakeModel]:
        for model in self.models:
            if model.name == name:
                break
        else:
            raise ModelNotFound(name, tuple(model.name for model in self.models))
        self.num_leases += 1
        try:
            yield model
        finally:
            self.num_leases -= 1

    def served(self) -> tuple[FakeModel, ...]:
        return self.models


def fake_model(folder: Path, name: str = "tiny", **fields: object) -> FakeModel:
    """A fake model with the tokenizer that was saved in `folder`."""
    return FakeModel(name=name, tokenizer=TextTokenizer.load(folder), engine=FakeEngine(), **fields)
