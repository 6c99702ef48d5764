"""A model without a model: an engine whose tokens the test hands out, behind a real tokenizer.

`FakeEngine` keeps EngineClient's contract — admission, streams that register while they run, abort on
close, death — and `FakeManager` keeps ModelManager's leases, and counts them.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.engine.messages import EngineReady, EngineStats, FinishReason, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import EngineFailed, ModelInUse, ModelNotFound, OndolError, QueueFull
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.model_events import EventKind, ModelEvent, ModelEvents
from ondol.model_manager.model_status import ModelStatus, ModelSummary, StageProgress
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
    kv_cache_dtype="float32",
    kv_cache_bytes=1,
    load_seconds=0.0,
)


@dataclass
class FakeCall:
    """One request as the engine saw it; the test feeds its outputs."""

    prompt_ids: list[int]
    params: SamplingParams
    cache_salt: str
    priority: int
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
        **more: Any,
    ) -> None:
        """Hand out one engine step's tokens; `more` are further fields of TokenOutput."""
        self.outputs.put_nowait(
            TokenOutput(
                request_id="r",
                first_index=self.num_fed,
                token_ids=list(token_ids),
                finish_reason=finish_reason,
                stop_token_id=stop_token_id,
                num_cached_tokens=num_cached_tokens,
                error=error,
                **more,
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
        self, prompt_ids: list[int], params: SamplingParams, *, cache_salt: str = "", priority: int = 0
    ) -> AsyncGenerator[TokenOutput, None]:
        self.check_admission()
        call = FakeCall(prompt_ids, params, cache_salt, priority)
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
    """ModelManager's contract over models that exist already.

    `num_leases` counts who holds one now, `keep_alives` is what each lease asked for, `orders` are the
    loads that were asked for. A load finds its model among `shelf` and takes `load_gate` to be set;
    `failures` holds the errors that loads, unloads and removals by a name raise instead.
    """

    def __init__(self, *models: FakeModel, shelf: Sequence[FakeModel] = ()) -> None:
        self.models = models
        self.shelf = tuple(shelf)
        self.num_leases = 0
        self.keep_alives: list[float | None] = []
        self.orders: list[LoadOrder] = []
        self.pulled: list[str] = []
        self.failures: dict[str, OndolError] = {}
        self.load_gate = asyncio.Event()
        self.load_gate.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.events = ModelEvents()
        self.states = {model.name: ModelStatus(model.name, "loaded") for model in models}
        self.states |= {model.name: ModelStatus(model.name, "unloaded") for model in shelf}

    @asynccontextmanager
    async def lease(self, name: str, *, keep_alive_s: float | None = None) -> AsyncIterator[FakeModel]:
        for model in self.models:
            if model.name == name:
                break
        else:
            raise ModelNotFound(name, tuple(model.name for model in self.models))
        self.num_leases += 1
        self._idle.clear()
        self.keep_alives.append(keep_alive_s)
        try:
            yield model
        finally:
            self.num_leases -= 1
            if not self.num_leases:
                self._idle.set()

    async def load(self, order: LoadOrder) -> FakeModel:
        self.orders.append(order)
        for model in self.models:
            if model.name == order.name:
                return model
        self.publish(ModelStatus(order.name, "loading", StageProgress("starting")))
        await self.load_gate.wait()
        model = next((model for model in self.shelf if model.name == order.name), None)
        error = self.failures.get(order.name) or (None if model else ModelNotFound(order.name))
        if error is not None:
            self.publish(ModelStatus(order.name, "failed", error=error))
            raise error
        self.models = (*self.models, model)
        self.publish(ModelStatus(order.name, "loaded", is_pinned=order.is_pinned))
        return model

    async def unload(self, name: str, *, force: bool = False, waits: bool = False) -> None:
        self._check(name)
        if waits:
            await self._idle.wait()
        if self.num_leases and not force:
            raise ModelInUse(name, self.num_leases)
        self.shelf += tuple(model for model in self.models if model.name == name)
        self.models = tuple(model for model in self.models if model.name != name)
        self.publish(ModelStatus(name, "unloaded"))

    async def remove(self, name: str) -> int:
        await self.unload(name)
        self.shelf = tuple(model for model in self.shelf if model.name != name)
        self.events.publish(ModelEvent("removed", self.states.pop(name)))
        return 1

    async def pull(self, model: str) -> None:
        self.pulled.append(model)
        self.publish(ModelStatus(model, "downloading", StageProgress("downloading", 0, 100)))
        await self.load_gate.wait()
        if error := self.failures.get(model):
            self.publish(ModelStatus(model, "failed", error=error))
            raise error
        self.publish(ModelStatus(model, "unloaded"))

    async def refresh(self) -> None:
        pass

    def served(self) -> tuple[FakeModel, ...]:
        return self.models

    def nameable(self) -> tuple[ModelSummary, ...]:
        return tuple(
            ModelSummary(model.name, model.created, model.max_model_len, model.source)
            for model in self.models
        )

    def statuses(self) -> tuple[ModelStatus, ...]:
        return tuple(self.states.values())

    def watch(self) -> AsyncGenerator[ModelEvent]:
        return self.events.watch()

    async def close(self) -> None:
        self.events.close()

    def publish(self, status: ModelStatus, kind: EventKind = "status") -> None:
        """What watchers and `statuses` hear from now on."""
        self.states[status.id] = status
        self.events.publish(ModelEvent(kind, status))

    def _check(self, name: str) -> None:
        if name in self.failures:
            raise self.failures[name]
        if name not in self.states:
            raise ModelNotFound(name, tuple(self.states))


def fake_model(folder: Path, name: str = "tiny", **fields: object) -> FakeModel:
    """A fake model with the tokenizer that was saved in `folder`."""
    return FakeModel(name=name, tokenizer=TextTokenizer.load(folder), engine=FakeEngine(), **fields)
