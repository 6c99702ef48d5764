"""Which quantization makes a model fit, decided before any weight is read.

Knows nothing about devices: who asks says how much memory there is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ondol.errors import DoesNotFit
from ondol.modeling.architecture import read_config
from ondol.modeling.footprint import Load, measure_footprint
from ondol.modeling.loading import Blueprint, draw_model
from ondol.modeling.offload_plan import offload_flag, plan_offload, smallest_offload
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization.selection import read_quantization


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to fit beside the weights.

    Attributes:
        kv_cache_bytes: memory asked for the KV cache, or None.
        max_model_len: context asked for in tokens, or None: the model's own.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: rows of a step.
        kv_limit_bytes: the KV cache that the engine takes at most where no size was asked for.
        kv_dtype: of the KV cache; None is the model's.
        offload_bytes: host memory for layers that stay there.
        is_host: the device is a CPU, whose memory the host's is.
        is_deterministic: every row is to be computed in one way, whatever rows are computed beside it.
    """

    kv_cache_bytes: int | None
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_limit_bytes: int
    kv_dtype: torch.dtype | None = None
    offload_bytes: int = 0
    is_host: bool = False
    is_deterministic: bool = False


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes that a model takes of the device in one form.

    Attributes:
        host_bytes: of host memory beside them, of layers that stay there.
        kv_cache_bytes: all requests at the asked context, or what was asked for.
        one_request_bytes: KV cache of one request at the asked context.
    """

    weights_bytes: int
    workspace_bytes: int
    kv_cache_bytes: int
    one_request_bytes: int
    host_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Everything on the device."""
        return self.weights_bytes + self.workspace_bytes + self.kv_cache_bytes

    def __str__(self) -> str:
        return (
            f"{_mib(self.weights_bytes)} of weights + {_mib(self.kv_cache_bytes)} of KV cache + "
            f"{_mib(self.workspace_bytes)} of workspace = {_mib(self.total_bytes)}"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What --quantization auto came to.

    Attributes:
        name: what it is called.
        on_load: how to quantize; None leaves the weights as they are.
        reason: one sentence with the numbers.
    """

    name: str
    on_load: OnLoad | None
    reason: str


def measure_needs(blueprint: Blueprint, demand: Demand) -> MemoryNeeds:
    """What a model needs, from its shapes alone."""
    footprint = measure_footprint(blueprint)
    offload = plan_offload(blueprint.model.decoder_layers(), demand.offload_bytes)
    weights_bytes, host_bytes = offload.split(footprint.weights_bytes, is_host=demand.is_host)
    kv_dtype = demand.kv_dtype or blueprint.dtype
    token_bytes = footprint.kv_token_bytes(kv_dtype)
    context = demand.max_model_len or blueprint.context_length
    kv_cache_bytes = demand.kv_cache_bytes
    if kv_cache_bytes is None:
        kv_cache_bytes = min(context * token_bytes * demand.max_num_seqs, demand.kv_limit_bytes)
    # No more tokens are looked at in a step than the cache holds.
    num_tokens = min(context * demand.max_num_seqs, kv_cache_bytes // token_bytes)
    load = Load(
        min(context, num_tokens),
        demand.max_num_seqs,
        demand.max_num_batched_tokens,
        num_tokens,
        # A GPU's deterministic kernels need no more scratch than the others.
        is_deterministic=demand.is_deterministic and demand.is_host,
    )
    return MemoryNeeds(
        weights_bytes=weights_bytes,
        workspace_bytes=footprint.workspace_bytes(load, kv_dtype),
        kv_cache_bytes=kv_cache_bytes,
        one_request_bytes=context * token_bytes,
        host_bytes=host_bytes,
    )


def choose_quantization(
    folder: Path, device: torch.device, dtype: str, asked: OnLoad, demand: Demand, available_bytes: int
) -> Choice:
    """The most precise of none, int8, nf4 and nf4 with double quantization that fits.

    Args:
        folder, device, dtype: as `load_model` takes them.
        asked: all settings but method and double quantization, which are chosen.
        demand: context and concurrency.
        available_bytes: memory for weights, cache and workspace together.

    Raises:
        DoesNotFit: none fits, with the numbers.
        ModelRefused: the folder cannot be served.
    """
    read_config(folder)  # refuses what is no JSON
    if read_quantization(folder) is not None:
        return Choice("as published", None, "the checkpoint is quantized already and is served as published")
    free = f"{_mib(available_bytes)} are free"
    too_large: list[str] = []
    for name, on_load in _candidates(asked):
        blueprint = draw_model(folder, device, dtype, on_load)
        needs = measure_needs(blueprint, demand)
        if needs.total_bytes <= available_bytes:
            than = f" ({too_large[-1]})" if too_large else ""
            return Choice(name, on_load, f"it needs {needs}, and {free}{than}")
        too_large.append(f"{name} would need {_mib(needs.total_bytes)}")
    # `name` is the smallest form. Fewer requests at once are better than none: the others wait.
    smallest = replace(needs, kv_cache_bytes=min(needs.kv_cache_bytes, needs.one_request_bytes))
    if demand.kv_cache_bytes is None and smallest.total_bytes <= available_bytes:
        spare_bytes = available_bytes - needs.weights_bytes - needs.workspace_bytes
        num_requests = spare_bytes // needs.one_request_bytes
        reason = f"{free}, room for {num_requests} of {demand.max_num_seqs} requests at full length at once"
        return Choice(name, on_load, f"it needs {needs} for all requests, but {reason}")
    raise DoesNotFit(
        f"Not even {name} fits: it needs {smallest}, and {free}. "
        "Lower --max-model-len or --kv-cache-memory, or take a smaller model."
        f"{_offload_hint(blueprint, demand, smallest.total_bytes - available_bytes)}"
    )


def _candidates(asked: OnLoad) -> Iterator[tuple[str, OnLoad | None]]:
    """From most to least precise."""
    yield "none", None
    yield "int8", replace(asked, method="int8")
    yield "nf4", replace(asked, method="nf4", use_double_quant=False)
    yield "nf4 with double quantization", replace(asked, method="nf4", use_double_quant=True)


def _offload_hint(blueprint: Blueprint, demand: Demand, missing_bytes: int) -> str:
    """What else a user can do where the device's memory is not the host's."""
    if demand.is_host:
        return ""
    layers = blueprint.model.decoder_layers()
    saved_bytes = plan_offload(layers, demand.offload_bytes).saved_bytes
    plan = smallest_offload(layers, saved_bytes + missing_bytes)
    return "" if plan is None else f" As a last resort, slowly: {offload_flag(plan.host_bytes)}."


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
