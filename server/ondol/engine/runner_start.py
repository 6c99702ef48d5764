"""From a loaded model to a runner that is ready for its first request, and by which kernels.

Knows who measures, plans, builds and warms up, nothing about how. Invariant: a model that is loaded can be
served: by the torch reference, where the fast kernels turn out not to be for its shapes.
"""

from dataclasses import dataclass

import torch

from ondol.engine.kv_cache import KVPlan, choose_kv_dtype
from ondol.engine.memory_profile import CacheMemory, CudaMemoryMeter, plan_cache
from ondol.engine.messages import EngineConfig
from ondol.engine.model_runner import ModelRunner
from ondol.engine.runner_builder import RunnerBuilder, why_no_graphs
from ondol.engine.warm_up import prepare
from ondol.kernels.backend import REFERENCE, KernelFailure, Kernels, fall_back
from ondol.modeling.kernel_module import use_kernels
from ondol.modeling.loading import LoadedWeights


@dataclass(frozen=True, slots=True)
class StartedRunner:
    """A runner, and what was found out on the way to it.

    Attributes:
        plan, kv_dtype: its cache.
        token_budget: tokens that a step may compute.
        scratch_bytes: memory that the largest steps were seen to take; None where nothing was measured.
        kernels: what it computes with.
        notes: what a user should know about its cache and about how steps run.
    """

    runner: ModelRunner
    plan: KVPlan
    kv_dtype: torch.dtype
    token_budget: int
    scratch_bytes: int | None
    kernels: Kernels
    notes: tuple[str, ...]


def start_runner(
    config: EngineConfig, weights: LoadedWeights, kernels: Kernels, device: torch.device, memory: CacheMemory
) -> StartedRunner:
    """Decide the cache's size, build a runner over it and make it ready.

    Kernels are probed before a model is loaded, and its own shapes may ask more of the device: then the torch
    reference takes their place.

    Raises:
        DoesNotFit: not even one request of the asked length fits.
        DeviceUnusable: deterministic kernels are asked for and fail.
    """
    try:
        return _start(config, weights, kernels, device, memory)
    except KernelFailure as error:
        note = fall_back(str(error), is_deterministic=kernels.is_deterministic)
    # Out of the handler: the error would hold on to the memory of the step that failed.
    use_kernels(weights.model.named_modules(), REFERENCE)
    return _start(config, weights, REFERENCE, device, memory, (note,))


def _start(
    config: EngineConfig,
    weights: LoadedWeights,
    kernels: Kernels,
    device: torch.device,
    memory: CacheMemory,
    notes: tuple[str, ...] = (),
) -> StartedRunner:
    kv_dtype = choose_kv_dtype(config.kv_cache_dtype, weights.dtype)
    # Graphs are for GPUs; a CPU has nothing to gain from static buffers.
    uses_buffers = device.type == "cuda" and why_no_graphs(weights, kernels) is None
    builder = RunnerBuilder(weights, kernels, device, kv_dtype, config.max_num_seqs, uses_buffers)
    # A CPU's memory is everybody's: what it had at its busiest says little.
    meter = CudaMemoryMeter(device) if device.type == "cuda" else None
    plan, scratch_bytes = plan_cache(builder, config, memory, meter)
    weights.model.prepare(plan.max_model_len)
    built = builder.build(plan)
    token_budget = prepare(built, builder, plan, config.max_num_batched_tokens)
    notes = (*notes, *plan.notes, *built.notes)
    return StartedRunner(built.runner, plan, kv_dtype, token_budget, scratch_bytes, kernels, notes)
