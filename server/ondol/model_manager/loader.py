"""The one path from an order to a loaded model.

Finds or fetches the folder, starts an engine process, hears what the load will take, has room made for it,
lets the weights in. Knows nothing about leases. The invariant: when it raises, no process and no memory
is left behind.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from ondol.config import EngineSettings, ManagerSettings
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig, EngineReady, LoadPlan, LoadProgress
from ondol.errors import ModelNotFound
from ondol.model_manager.engine_config import engine_config
from ondol.model_manager.fetching import fetch
from ondol.model_manager.generation_defaults import GenerationDefaults
from ondol.model_manager.library import Library
from ondol.model_manager.load_log import LoadLog
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.loaded_model import LoadedModel
from ondol.model_manager.memory_budget import MemoryBudget
from ondol.model_manager.model_slot import ModelSlot
from ondol.model_manager.model_status import MemoryUse, StageProgress
from ondol.model_manager.resolve import ResolvedModel
from ondol.model_manager.room import Room
from ondol.text.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)

EngineFactory = Callable[[], Awaitable[EngineClient]]


@dataclass(frozen=True, slots=True)
class Loading:
    """What came of a load."""

    model: LoadedModel
    memory: MemoryUse


class Loader:
    """Loads models one after the other on one device.

    Args:
        settings, engine_settings: where an order leaves a choice.
        library: finds folders.
        budget, room: the device's memory.
        engine_factory: starts an engine process that waits for its configuration.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        engine_settings: EngineSettings,
        library: Library,
        budget: MemoryBudget,
        room: Room,
        engine_factory: EngineFactory,
    ) -> None:
        self._settings = settings
        self._engine_settings = engine_settings
        self._library = library
        self._budget = budget
        self._room = room
        self._engine_factory = engine_factory
        self._device_lock = asyncio.Lock()

    async def load(self, slot: ModelSlot, *, is_request: bool) -> Loading:
        """Load what the slot's order says; reports progress to the slot.

        Args:
            slot: its phase is "loading".
            is_request: a request named the model, so nothing is downloaded and no pinned model leaves.

        Raises:
            OndolError: why not.
        """
        slot.resolved = await self._locate(slot, may_download=slot.order.allow_download and not is_request)
        slot.report(StageProgress("waiting"))
        async with self._device_lock:
            slot.report(StageProgress("starting"))
            logger.info("loading %s from %s", slot.name, slot.resolved.path)
            # The engine imports its libraries while the tokenizer loads here.
            engine = await self._engine_factory()
            try:
                return await self._load_into(engine, slot, slot.resolved, may_evict_pinned=not is_request)
            except BaseException:
                await engine.close()
                self._budget.release(slot.name)
                raise

    async def download(self, slot: ModelSlot, *, is_refresh: bool) -> None:
        """Bring the slot's model to this machine; reports progress to the slot.

        Raises:
            OndolError: why not.
        """

        def report(done_bytes: int, total_bytes: int) -> None:
            slot.report(StageProgress("downloading", done_bytes, total_bytes))

        await fetch(slot.order.model, self._settings.home, is_refresh=is_refresh, on_bytes=report)
        self._library.forget()

    async def _locate(self, slot: ModelSlot, *, may_download: bool) -> ResolvedModel:
        found = await self._library.find(slot.order.model)
        if found is None and may_download:
            slot.move("downloading")
            slot.report(StageProgress("downloading"))
            await self.download(slot, is_refresh=False)
            found = await self._library.find(slot.order.model)
            slot.move("loading")
        if found is None:
            raise ModelNotFound(slot.order.model, tuple(self._library.models))
        return found

    async def _load_into(
        self, engine: EngineClient, slot: ModelSlot, resolved: ResolvedModel, *, may_evict_pinned: bool
    ) -> Loading:
        tokenizer, defaults = await asyncio.to_thread(
            _read_texts, resolved, slot.order, merges_system_prompt=self._settings.merges_system_prompt
        )
        config = engine_config(slot.order, resolved, self._engine_settings, tokenizer.end_token_ids)
        plan = await engine.plan(self._within_budget(config, may_evict_pinned=may_evict_pinned))
        kv_cache_bytes = await self._room.make(slot, plan, may_evict_pinned=may_evict_pinned)
        log = LoadLog(slot.name)

        def report(progress: LoadProgress) -> None:
            log.progress(progress)
            slot.report(StageProgress("weights", progress.loaded_bytes, progress.total_bytes))

        slot.report(StageProgress("weights"))
        ready = await engine.proceed(
            kv_cache_bytes, max_queue_size=self._settings.max_queue_size, on_progress=report
        )
        log.ready(ready)
        return Loading(_model(slot, resolved, tokenizer, engine, defaults), _memory(plan, ready))

    def _within_budget(self, config: EngineConfig, *, may_evict_pinned: bool) -> EngineConfig:
        """Tell the engine what a choice of quantization may fill."""
        reachable_bytes = self._room.reachable_bytes(may_evict_pinned=may_evict_pinned)
        return msgspec.structs.replace(
            config,
            # Before the first load nobody has measured: the engine does.
            memory_bytes=reachable_bytes or None,
            memory_share=1 / self._budget.max_models,
        )


def _read_texts(
    resolved: ResolvedModel, order: LoadOrder, *, merges_system_prompt: bool
) -> tuple[TextTokenizer, GenerationDefaults]:
    recommended = resolved.recommended
    tokenizer = TextTokenizer.load(
        recommended.tokenizer_path or resolved.path,
        chat_template=order.chat_template or recommended.chat_template,
        merges_system_prompt=merges_system_prompt,
    )
    return tokenizer, GenerationDefaults.load(resolved.path)


def _model(
    slot: ModelSlot,
    resolved: ResolvedModel,
    tokenizer: TextTokenizer,
    engine: EngineClient,
    defaults: GenerationDefaults,
) -> LoadedModel:
    return LoadedModel(
        name=slot.name,
        tokenizer=tokenizer,
        engine=engine,
        max_model_len=engine.ready.max_model_len,
        vocab_size=engine.ready.vocab_size,
        defaults=defaults,
        created=int(time.time()),
        source=resolved.source,
    )


def _memory(plan: LoadPlan, ready: EngineReady) -> MemoryUse:
    measured_bytes = ready.workspace_bytes
    workspace_bytes = plan.workspace_bytes if measured_bytes is None else measured_bytes
    return MemoryUse(ready.weights_bytes, ready.kv_cache_bytes, workspace_bytes, ready.host_weights_bytes)
