"""What a load will take, from shapes alone: the engine's answer before it takes any memory.

Knows nothing about other models on the device; who asked decides what this one gets. The invariant: no
weight is read and nothing large is allocated here.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ondol.engine.kv_cache import (
    KVRequest,
    KVShape,
    available_bytes,
    choose_kv_dtype,
    free_bytes,
    host_free_bytes,
    plan_kv_cache,
    total_bytes,
)
from ondol.engine.messages import EngineConfig, LoadPlan, Offload
from ondol.engine.quantization import demand_of
from ondol.errors import DoesNotFit
from ondol.modeling.footprint import measure_footprint
from ondol.modeling.loading import Blueprint, draw_model
from ondol.modeling.memory_plan import measure_needs
from ondol.modeling.offload_plan import GIB, offload_flag, possible_offloads
from ondol.modeling.quantization.on_load import OnLoad


def plan_load(config: EngineConfig, device: torch.device, on_load: OnLoad | None) -> LoadPlan:
    """Count what `config` will take on `device` with its weights in the form `on_load`.

    Raises:
        ModelRefused: the folder cannot be served.
        DoesNotFit: the KV cache that was asked for does not hold one request, or the host lacks memory for
            the layers that are to stay there.
    """
    blueprint = draw_model(Path(config.model_path), device, config.dtype, on_load)
    # A CPU's memory is everybody's: there the cache has a limit beside the budget.
    kv_limit_bytes = available_bytes(device) if device.type == "cpu" else sys.maxsize
    needs = measure_needs(blueprint, demand_of(config, device, kv_limit_bytes))
    host_limit_bytes = host_free_bytes()
    check_host_memory(needs.host_bytes, host_limit_bytes)
    context = config.max_model_len or blueprint.context_length
    min_kv_bytes, request_kv_bytes, max_kv_bytes = _kv_range(config, blueprint, kv_limit_bytes)
    return LoadPlan(
        device=device.type,
        weights_bytes=needs.weights_bytes,
        workspace_bytes=needs.workspace_bytes,
        min_kv_bytes=min_kv_bytes,
        request_kv_bytes=request_kv_bytes,
        max_kv_bytes=max_kv_bytes,
        context=context,
        free_bytes=free_bytes(device),
        total_bytes=total_bytes(device),
        host_bytes=needs.host_bytes,
        offloads=() if device.type == "cpu" else tuple(offloads_within(blueprint, host_limit_bytes)),
    )


def check_host_memory(host_bytes: int, limit_bytes: int) -> None:
    """Raise DoesNotFit if layers that are to stay in host memory take more than this."""
    if host_bytes > limit_bytes:
        raise DoesNotFit(
            f"{host_bytes / 2**20:.0f} MiB of weights were to stay in host memory, but "
            f"{limit_bytes / 2**20:.0f} MiB can be had there: ask for at most "
            f"--cpu-offload-gb {math.floor(100 * limit_bytes / GIB) / 100:g}."
        )


def offloads_within(blueprint: Blueprint, limit_bytes: int) -> Iterator[Offload]:
    """Every choice of layers that saves device memory and takes at most this much of the host's."""
    weights_bytes = measure_footprint(blueprint).weights_bytes
    for plan in possible_offloads(blueprint.model.decoder_layers()):
        if plan.host_bytes <= limit_bytes:
            device_bytes = weights_bytes - plan.saved_bytes
            yield Offload(offload_flag(plan.host_bytes), plan.host_bytes, device_bytes)


def _kv_range(config: EngineConfig, blueprint: Blueprint, kv_limit_bytes: int) -> tuple[int, int, int]:
    """KV cache bytes: without which it cannot run, of one request, and of use at most."""
    model = blueprint.model
    shape = KVShape(blueprint.config.num_hidden_layers, model.num_kv_heads, model.head_dim)
    asked = KVRequest(config.kv_cache_bytes, config.max_model_len, config.max_num_seqs, config.block_size)
    dtype = choose_kv_dtype(config.kv_cache_dtype, blueprint.dtype)
    if config.kv_cache_bytes is not None:
        size_bytes = plan_kv_cache(
            asked, shape, dtype, blueprint.context_length, config.kv_cache_bytes
        ).size_bytes
        return size_bytes, size_bytes, size_bytes
    block_bytes = shape.bytes_per_token(dtype) * config.block_size
    context = config.max_model_len or blueprint.context_length
    request_bytes = -(-context // config.block_size) * block_bytes
    limit_bytes = max(block_bytes, min(request_bytes * config.max_num_seqs, kv_limit_bytes))
    if config.max_model_len is not None:
        return request_bytes, request_bytes, max(request_bytes, limit_bytes)
    return block_bytes, min(request_bytes, limit_bytes), limit_bytes
