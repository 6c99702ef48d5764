"""What an engine is asked for: the order first, then the settings, then what the catalog recommends.

Knows nothing about processes. The invariant: a setting that the user made is never overridden by the
catalog, only by the order.
"""

from ondol.config import EngineSettings
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.resolve import ResolvedModel


def engine_config(
    order: LoadOrder, resolved: ResolvedModel, settings: EngineSettings, end_token_ids: tuple[int, ...]
) -> EngineConfig:
    """The configuration of one load.

    Args:
        order, settings: None is what leaves a choice open.
        resolved: the folder, and what the catalog says of it.
        end_token_ids: the tokenizer's.
    """
    recommended, asked = resolved.recommended, settings.quantization
    chosen = asked.method if settings.is_quantization_chosen else recommended.quantization or asked.method
    return EngineConfig(
        model_path=str(resolved.path),
        device=settings.device,
        dtype=order.dtype or settings.dtype,
        quantization=QuantizationConfig(
            method=order.quantization or chosen,
            compute_dtype=asked.compute_dtype,
            use_double_quant=asked.use_double_quant,
            quant_storage=asked.quant_storage,
            skip_modules=asked.skip_modules,
            quantize_lm_head=asked.quantize_lm_head,
        ),
        max_model_len=order.max_model_len or settings.max_model_len or recommended.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        kv_cache_bytes=order.kv_cache_bytes or settings.kv_cache_bytes or recommended.kv_cache_bytes,
        kv_cache_dtype=order.kv_cache_dtype or settings.kv_cache_dtype,
        block_size=settings.block_size,
        enable_prefix_caching=settings.enable_prefix_caching,
        deterministic=settings.deterministic if order.deterministic is None else order.deterministic,
        offload_bytes=settings.offload_bytes if order.offload_bytes is None else order.offload_bytes,
        end_token_ids=end_token_ids,
        num_threads=settings.num_threads,
    )
