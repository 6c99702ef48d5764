"""What the log says of a load.

Knows nothing about how it is done.
"""

import logging

from ondol.engine.messages import EngineReady, LoadProgress

PROGRESS_STEP = 0.25

logger = logging.getLogger(__name__)


class LoadLog:
    """One load, in steps of a quarter."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_share = PROGRESS_STEP

    def progress(self, progress: LoadProgress) -> None:
        """Weights have come in."""
        share = progress.loaded_bytes / max(1, progress.total_bytes)
        if share >= self._next_share:
            self._next_share = share + PROGRESS_STEP
            logger.info("loading %s: %.0f %%", self._name, 100 * share)

    def ready(self, ready: EngineReady) -> None:
        """The model answers."""
        for note in ready.notes:
            logger.warning("%s: %s", self._name, note)
        for stored in ready.weights.stored:
            logger.info(
                "%s: %s, %d weights of %d modules in %.1f MiB of %s, %.3f bits per weight",
                self._name,
                stored.kind,
                stored.num_weights,
                stored.num_modules,
                stored.num_bytes / 2**20,
                stored.container,
                stored.bits_per_weight,
            )
        if len(ready.weights.stored) > 1:
            logger.info("%s: not quantized: %s", self._name, ", ".join(ready.weights.unquantized))
        logger.info(
            "%s is ready on %s in %s%s: %.0f MiB of weights, %d tokens of KV cache in %.0f MiB of %s, "
            "context %d tokens, %d tokens per step, loaded in %.1f s",
            self._name,
            ready.device,
            ready.dtype,
            ", deterministic" if ready.deterministic else "",
            ready.weights_bytes / 2**20,
            ready.num_blocks * ready.block_size,
            ready.kv_cache_bytes / 2**20,
            ready.kv_cache_dtype,
            ready.max_model_len,
            ready.max_num_batched_tokens,
            ready.load_seconds,
        )
