"""Which models are loaded, under which names, and who is using them.

Starts one engine process per model and hands loaded models out as leases. Knows nothing about HTTP
or about how an engine computes. Invariant: a model is visible to `lease` only while its engine is
loaded, and every engine that was started is closed by `close`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ondol.config import EngineSettings
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig, EngineReady, LoadProgress, QuantizationConfig
from ondol.errors import ModelNotFound
from ondol.model_manager.generation_defaults import GenerationDefaults
from ondol.model_manager.loaded_model import LoadedModel
from ondol.model_manager.resolve import ResolvedModel
from ondol.text.tokenizer import TextTokenizer

__all__ = ["LoadedModel", "ModelManager"]

logger = logging.getLogger(__name__)

PROGRESS_STEP = 0.25


class ModelManager:
    """The loaded models of one daemon; belongs to one event loop."""

    def __init__(self) -> None:
        self._models: dict[str, LoadedModel] = {}

    async def load(
        self,
        resolved: ResolvedModel,
        settings: EngineSettings,
        *,
        max_queue_size: int,
        served_name: str | None = None,
    ) -> LoadedModel:
        """Load a model and serve it as `served_name`, or under its own name.

        Raises:
            ModelRefused, DoesNotFit, DeviceUnusable, EngineFailed: nothing is left running.
        """
        name = served_name or resolved.name
        # The engine imports its libraries while the tokenizer loads here.
        engine = await EngineClient.spawn()
        try:
            defaults = GenerationDefaults.load(resolved.path)
            tokenizer = await asyncio.to_thread(TextTokenizer.load, resolved.path)
            config = _engine_config(resolved, settings, tokenizer)
            ready = await engine.load(
                config, max_queue_size=max_queue_size, on_progress=_ProgressLog(name).report
            )
        except BaseException:
            await engine.close()
            raise
        _log_load(name, ready)
        model = LoadedModel(
            name=name,
            tokenizer=tokenizer,
            engine=engine,
            max_model_len=ready.max_model_len,
            vocab_size=ready.vocab_size,
            defaults=defaults,
            created=int(time.time()),
            source=resolved.source,
        )
        self._models[name] = model
        return model

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncGenerator[LoadedModel, None]:
        """Use a model by name; raises ModelNotFound."""
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(name, tuple(self._models))
        yield model

    def served(self) -> tuple[LoadedModel, ...]:
        """The models that a request may name, oldest first."""
        return tuple(self._models.values())

    async def close(self) -> None:
        """End every engine process."""
        models = list(self._models.values())
        self._models.clear()
        await asyncio.gather(*(model.engine.close() for model in models))


def _log_load(name: str, ready: EngineReady) -> None:
    for note in ready.notes:
        logger.warning("%s: %s", name, note)
    for stored in ready.weights.stored:
        logger.info(
            "%s: %s, %d weights of %d modules in %.1f MiB of %s, %.3f bits per weight",
            name,
            stored.kind,
            stored.num_weights,
            stored.num_modules,
            stored.num_bytes / 2**20,
            stored.container,
            stored.bits_per_weight,
        )
    if len(ready.weights.stored) > 1:
        logger.info("%s: not quantized: %s", name, ", ".join(ready.weights.unquantized))
    logger.info(
        "%s is ready on %s in %s: %.0f MiB of weights, %d tokens of KV cache in %.0f MiB, "
        "context %d tokens, %d tokens per step, loaded in %.1f s",
        name,
        ready.device,
        ready.dtype,
        ready.weights_bytes / 2**20,
        ready.num_blocks * ready.block_size,
        ready.kv_cache_bytes / 2**20,
        ready.max_model_len,
        ready.max_num_batched_tokens,
        ready.load_seconds,
    )


class _ProgressLog:
    """Logs a load's progress in steps of a quarter."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_share = PROGRESS_STEP

    def report(self, progress: LoadProgress) -> None:
        share = progress.loaded_bytes / max(1, progress.total_bytes)
        if share >= self._next_share:
            self._next_share = share + PROGRESS_STEP
            logger.info("loading %s: %.0f %%", self._name, 100 * share)


def _engine_config(
    resolved: ResolvedModel, settings: EngineSettings, tokenizer: TextTokenizer
) -> EngineConfig:
    return EngineConfig(
        model_path=str(resolved.path),
        device=settings.device,
        dtype=settings.dtype,
        quantization=QuantizationConfig(
            method=settings.quantization.method,
            compute_dtype=settings.quantization.compute_dtype,
            use_double_quant=settings.quantization.use_double_quant,
            quant_storage=settings.quantization.quant_storage,
            skip_modules=settings.quantization.skip_modules,
            quantize_lm_head=settings.quantization.quantize_lm_head,
        ),
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        kv_cache_bytes=settings.kv_cache_bytes,
        block_size=settings.block_size,
        enable_prefix_caching=settings.enable_prefix_caching,
        end_token_ids=tokenizer.end_token_ids,
        num_threads=settings.num_threads,
    )
