"""What an engine's configuration asks of quantization, in the modelling room's words.

Knows memory and settings, nothing about formats.
"""

from pathlib import Path

import torch

from ondol.engine.kv_cache import available_bytes, free_bytes
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.engine.warm_up import MAX_TOKENS
from ondol.errors import DoesNotFit
from ondol.kernels.kv_layer import FLOAT8
from ondol.modeling.loading import DTYPES
from ondol.modeling.memory_plan import Choice, Demand, choose_quantization
from ondol.modeling.quantization.on_load import METHODS, OnLoad

# Share of a GPU's free memory that its cache is meant to get where neither its size nor a context was asked
# for: enough to be of use, little enough to leave the weights their precision.
CUDA_KV_SHARE = 0.2


def plan_on_load(config: EngineConfig, device: torch.device) -> tuple[OnLoad | None, tuple[str, ...]]:
    """How to quantize on load, and what to tell about the choice.

    Raises:
        DoesNotFit: "auto" found no form that fits.
        ModelRefused: the folder cannot be served.
    """
    asked = config.quantization
    if asked.method == "none":
        return None, ()
    if asked.method != "auto":
        return _on_load(asked), ()
    memory_bytes = config.memory_bytes or free_bytes(device)
    try:
        choice = choose_within(config, device, int(memory_bytes * config.memory_share))
    except DoesNotFit:
        if config.memory_share == 1.0:
            raise
        choice = choose_within(config, device, memory_bytes)
    return choice.on_load, (f"--quantization auto chose {choice.name}: {choice.reason}",)


def choose_within(config: EngineConfig, device: torch.device, memory_bytes: int) -> Choice:
    """What "auto" comes to with this much memory; raises as `plan_on_load`."""
    demand = demand_of(config, device, _kv_limit_bytes(config, device, memory_bytes))
    asked = _on_load(config.quantization)
    return choose_quantization(Path(config.model_path), device, config.dtype, asked, demand, memory_bytes)


def demand_of(config: EngineConfig, device: torch.device, kv_limit_bytes: int) -> Demand:
    """What has to fit beside the weights, with a KV cache of at most this size unless one was asked for."""
    return Demand(
        kv_cache_bytes=config.kv_cache_bytes,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens or MAX_TOKENS[device.type],
        kv_limit_bytes=kv_limit_bytes,
        kv_dtype=None if config.kv_cache_dtype == "auto" else FLOAT8,
        offload_bytes=config.offload_bytes,
        is_host=device.type == "cpu",
        is_deterministic=config.deterministic,
    )


def _kv_limit_bytes(config: EngineConfig, device: torch.device, memory_bytes: int) -> int:
    if device.type == "cpu":
        return available_bytes(device)
    return memory_bytes if config.max_model_len is not None else int(memory_bytes * CUDA_KV_SHARE)


def _on_load(asked: QuantizationConfig) -> OnLoad:
    return OnLoad(
        method=METHODS.get(asked.method, "nf4"),
        compute_dtype=None if asked.compute_dtype == "auto" else DTYPES[asked.compute_dtype],
        use_double_quant=asked.use_double_quant,
        skip_modules=asked.skip_modules,
        quantize_head=asked.quantize_lm_head,
        storage_dtype=getattr(torch, asked.quant_storage),
    )
