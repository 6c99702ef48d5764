"""The API process's end of the engine: spawns it, streams requests through it, notices its death.

Lives in one asyncio event loop. Keeps, per open request, everything that is needed to start it again
(prompt ids, parameters, seed, output ids). Knows nothing about text or HTTP. Invariant: a request is
registered exactly as long as its generator runs; whichever way the generator ends, the engine
forgets the request.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from ondol.engine.connection import EngineConnection
from ondol.engine.messages import (
    AbortRequest,
    AddRequest,
    EngineConfig,
    EngineReady,
    EngineStats,
    FromEngine,
    LoadFailed,
    LoadPlan,
    LoadProgress,
    Proceed,
    StepOutputs,
    TokenOutput,
)
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import DeviceUnusable, DoesNotFit, EngineFailed, ModelRefused, OndolError, QueueFull

RETRY_AFTER_S = 2


@dataclass(slots=True)
class OpenRequest:
    """What the API side holds of a request: enough to rebuild it in a new engine.

    Attributes:
        output_ids: tokens received so far; outputs for indices already held are dropped.
        outputs: what the generator has not yielded yet; None ends it (the engine is gone).
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    cache_salt: str
    priority: int = 0
    output_ids: list[int] = field(default_factory=list)
    outputs: asyncio.Queue[TokenOutput | None] = field(default_factory=asyncio.Queue)

    def to_message(self) -> AddRequest:
        """The request as the engine takes it, with what was generated already."""
        return AddRequest(
            request_id=self.request_id,
            prompt_ids=self.prompt_ids,
            params=self.params,
            output_ids=list(self.output_ids),
            cache_salt=self.cache_salt,
            priority=self.priority,
        )


class EngineClient:
    """One engine process and the requests that are open in it.

    Use `spawn`, then `load`; the process imports its libraries in between.
    """

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._open: dict[str, OpenRequest] = {}
        self._ids = itertools.count()
        self._max_open = 0
        self._max_running = 0
        self._ready: EngineReady | None = None
        self._receiver: asyncio.Task[None] | None = None
        self.stats = EngineStats()
        self.failure: str | None = None

    @classmethod
    async def spawn(cls) -> "EngineClient":
        """Start an engine process; it waits for its configuration."""
        return cls(await EngineConnection.spawn())

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        max_queue_size: int,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> "EngineClient":
        """Spawn and load in one go; see both."""
        client = await cls.spawn()
        await client.load(config, max_queue_size=max_queue_size, on_progress=on_progress)
        return client

    async def load(
        self,
        config: EngineConfig,
        *,
        max_queue_size: int,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> EngineReady:
        """Configure the engine and wait until its model is loaded.

        Args:
            config: what to load.
            max_queue_size: requests that may wait beyond those that run.
            on_progress: called as weights stream in.

        Raises:
            OndolError: the error that the engine reports; its process is gone then.
            EngineFailed: the process died.
        """
        self._connection.send(config)
        return await self._become_ready(config.max_num_seqs + max_queue_size, on_progress)

    async def plan(self, config: EngineConfig) -> LoadPlan:
        """Configure the engine and hear what the load will take; `proceed` follows.

        Raises:
            OndolError: as `load`; the process is gone then.
        """
        self._connection.send(msgspec.structs.replace(config, wants_plan=True))
        try:
            message = await self._read_while_loading()
        except BaseException:
            await self.close()
            raise
        assert isinstance(message, LoadPlan), "the engine was asked for a plan"
        self._max_running = config.max_num_seqs
        return message

    async def proceed(
        self,
        kv_cache_bytes: int,
        *,
        max_queue_size: int,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> EngineReady:
        """Load what was planned, with a KV cache of this size; otherwise as `load`."""
        self._connection.send(Proceed(kv_cache_bytes))
        return await self._become_ready(self._max_running + max_queue_size, on_progress)

    @property
    def ready(self) -> EngineReady:
        """What the engine said when its model was loaded."""
        assert self._ready is not None, "load() has not finished"
        return self._ready

    @property
    def is_alive(self) -> bool:
        """Whether requests can be served."""
        return self.failure is None and self._ready is not None

    @property
    def num_open(self) -> int:
        """Requests whose generators are running."""
        return len(self._open)

    @property
    def process_id(self) -> int:
        """The engine process's id."""
        return self._connection.process_id

    def check_admission(self, num_requests: int = 1) -> None:
        """Raise QueueFull or EngineFailed if `num_requests` more could not be served now."""
        if self.failure is not None:
            raise EngineFailed(self.failure)
        if len(self._open) + num_requests > self._max_open:
            raise QueueFull(RETRY_AFTER_S)

    async def generate(
        self, prompt_ids: list[int], params: SamplingParams, *, cache_salt: str = "", priority: int = 0
    ) -> AsyncGenerator[TokenOutput, None]:
        """Stream one request's tokens until an output with a finish_reason.

        Closing the generator aborts the request.

        Raises:
            QueueFull: too many requests are open.
            EngineFailed: the engine is dead or dies, or this request's computation failed.
        """
        self.check_admission()
        request = OpenRequest(f"r{next(self._ids)}", prompt_ids, params, cache_salt, priority)
        self._open[request.request_id] = request
        finished = False
        try:
            self._connection.send(request.to_message())
            while not finished:
                output = await request.outputs.get()
                if output is None:
                    raise EngineFailed(self.failure or "the engine process died")
                finished = output.finish_reason is not None
                if output.error is not None:
                    raise EngineFailed(output.error)
                yield output
        finally:
            del self._open[request.request_id]
            if not finished and self.failure is None:
                self._connection.send(AbortRequest(request.request_id))

    async def close(self) -> None:
        """End the engine process and every open request."""
        if self.failure is None:
            self.failure = "the engine was closed"
        if self._receiver is not None:
            self._receiver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._receiver
        self._fail_open_requests()
        await self._connection.close()

    async def _become_ready(
        self, max_open: int, on_progress: Callable[[LoadProgress], None] | None
    ) -> EngineReady:
        try:
            while not isinstance(message := await self._read_while_loading(), EngineReady):
                if isinstance(message, LoadProgress) and on_progress is not None:
                    on_progress(message)
        except BaseException:
            await self.close()
            raise
        self._ready = message
        self._max_open = max_open
        self._receiver = asyncio.create_task(self._receive(), name="engine receiver")
        return message

    async def _read_while_loading(self) -> FromEngine:
        message = await self._connection.read()
        if isinstance(message, LoadFailed):
            raise _rebuild_error(message)
        return message

    async def _receive(self) -> None:
        """Hand out step outputs until the engine dies, then end every open request."""
        try:
            while True:
                message = await self._connection.read()
                if isinstance(message, StepOutputs):
                    self.stats = message.stats
                    for output in message.outputs:
                        self._hand_out(output)
        except EngineFailed as error:
            self.failure = str(error)
            self.stats = EngineStats()
            self._fail_open_requests()

    def _hand_out(self, output: TokenOutput) -> None:
        request = self._open.get(output.request_id)
        if request is None:  # aborted while its output was under way
            return
        num_known = len(request.output_ids) - output.first_index
        assert num_known >= 0, "the engine skipped tokens"
        if num_known:
            output = msgspec.structs.replace(
                output,
                first_index=len(request.output_ids),
                token_ids=output.token_ids[num_known:],
                logprobs=output.logprobs[num_known:],
            )
        request.output_ids.extend(output.token_ids)
        request.outputs.put_nowait(output)

    def _fail_open_requests(self) -> None:
        for request in self._open.values():
            request.outputs.put_nowait(None)


def _rebuild_error(message: LoadFailed) -> OndolError:
    """The engine's error, as the class that it named."""
    kinds = {kind.__name__: kind for kind in (ModelRefused, DoesNotFit, DeviceUnusable)}
    return kinds.get(message.kind, EngineFailed)(message.message)
