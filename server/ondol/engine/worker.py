"""What the engine process does: loads one model, then steps for as long as it lives.

The thread that runs it owns everything here. Knows nothing about how messages travel. Invariant: an
expected failure of the load is reported to the API process, never raised.
"""

import queue
import time
from pathlib import Path

import msgspec
import torch

from ondol.engine.block_manager import BlockManager
from ondol.engine.channel import Channel
from ondol.engine.core import EngineCore
from ondol.engine.grammar_compiler import GrammarCompiler, GrammarQueue
from ondol.engine.host_memory import return_freed_memory
from ondol.engine.kv_cache import KVPlan, kv_dtype_name
from ondol.engine.load_plan import plan_load
from ondol.engine.memory_profile import CacheMemory
from ondol.engine.messages import (
    AbortRequest,
    AddRequest,
    EngineConfig,
    EngineReady,
    LoadFailed,
    LoadPlan,
    LoadProgress,
    Proceed,
    StepOutputs,
    TokenOutput,
)
from ondol.engine.model_runner import ModelRunner
from ondol.engine.quantization import plan_on_load
from ondol.engine.runner_start import start_runner
from ondol.engine.scheduler import Scheduler
from ondol.engine.stored_weights import WeightsReport
from ondol.errors import DeviceUnusable, DoesNotFit, OndolError
from ondol.kernels.backend import choose_kernels
from ondol.modeling.loading import load_model, require_determinism

PROGRESS_INTERVAL_S = 0.2
GRAMMAR_POLL_S = 0.005
# Memory for the logits of prompts whose log-probabilities are wanted, in one step.
PROMPT_LOGITS_BYTES = 128 * 2**20


def run(channel: Channel) -> None:
    """Do what the first message asks for; returns only when that cannot be loaded."""
    config = channel.received.get()
    assert isinstance(config, EngineConfig), "the first message configures the engine"
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    try:
        core, ready = load_core(config, channel)
    except OndolError as error:
        channel.send(LoadFailed(type(error).__name__, str(error)))
        return
    except (MemoryError, torch.OutOfMemoryError) as error:
        channel.send(LoadFailed(DoesNotFit.__name__, f"The model does not fit the memory: {error}"))
        return
    channel.send(ready)
    serve(core, channel)


def choose_device(asked: str) -> torch.device:
    """Resolve "auto", "cpu" or "cuda"; raises DeviceUnusable if a GPU was asked for and is not there."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceUnusable(
            "--device cuda was asked for, but torch finds no usable CUDA device: check the driver with "
            "nvidia-smi and that this torch is a CUDA build, or use --device cpu."
        )
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def load_core(config: EngineConfig, channel: Channel) -> tuple[EngineCore, EngineReady]:
    """Load the model and build everything round it.

    Raises:
        OndolError: expected failures; the caller reports them.
    """
    began_s = time.monotonic()
    device = choose_device(config.device)
    if config.deterministic:
        require_determinism(Path(config.model_path))
    on_load, choice_notes = plan_on_load(config, device)
    memory = CacheMemory(config.kv_cache_bytes)
    if config.wants_plan:
        memory = _ask_for_memory(plan_load(config, device, on_load), config, channel)
    kernels, kernel_notes = choose_kernels(device, is_deterministic=config.deterministic)
    weights = load_model(
        Path(config.model_path),
        device,
        config.dtype,
        on_load=on_load,
        on_progress=Progress(channel),
        kernels=kernels,
        offload_bytes=config.offload_bytes,
    )
    return_freed_memory()
    started = start_runner(config, weights, kernels, device, memory)
    plan = started.plan
    core = _build_core(config, started.runner, plan, weights.vocab_size, started.token_budget)
    return core, EngineReady(
        device=device.type,
        dtype=str(weights.dtype).removeprefix("torch."),
        max_model_len=plan.max_model_len,
        vocab_size=weights.vocab_size,
        max_num_batched_tokens=started.token_budget,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        weights_bytes=weights.weights_bytes,
        host_weights_bytes=weights.host_weights_bytes,
        kv_cache_bytes=plan.size_bytes,
        kv_cache_dtype=kv_dtype_name(started.kv_dtype),
        workspace_bytes=started.scratch_bytes,
        load_seconds=time.monotonic() - began_s,
        deterministic=started.kernels.is_deterministic,
        weights=msgspec.convert(weights.report, WeightsReport, from_attributes=True),
        notes=(*choice_notes, *kernel_notes, *weights.notes, *started.notes),
    )


def _ask_for_memory(plan: LoadPlan, config: EngineConfig, channel: Channel) -> CacheMemory:
    """Send the plan and wait as long as other models take to make room; the process ends with its socket."""
    channel.send(plan)
    proceed = channel.received.get()
    assert isinstance(proceed, Proceed), "a plan is answered before anything else is asked"
    if config.kv_cache_bytes is not None:
        return CacheMemory(proceed.kv_cache_bytes)
    return CacheMemory(proceed.kv_cache_bytes, proceed.kv_cache_bytes + plan.workspace_bytes)


def _build_core(
    config: EngineConfig, runner: ModelRunner, plan: KVPlan, vocab_size: int, token_budget: int
) -> EngineCore:
    """The scheduler, its blocks and the grammars round a model that is ready to run."""
    block_manager = BlockManager(plan.num_blocks, plan.block_size, config.enable_prefix_caching)
    max_prompt_logits = max(1, PROMPT_LOGITS_BYTES // (torch.float32.itemsize * vocab_size))
    scheduler = Scheduler(block_manager, config.max_num_seqs, token_budget, max_prompt_logits)
    end_token_ids = frozenset(config.end_token_ids)
    compiler = GrammarCompiler(Path(config.model_path), vocab_size, end_token_ids)
    return EngineCore(
        runner,
        scheduler,
        end_token_ids,
        plan.max_model_len,
        vocab_size,
        GrammarQueue(compiler.compile),
        # A GPU works while the host schedules; on a CPU both would take turns all the same.
        overlaps=runner.device.type == "cuda",
    )


def serve(core: EngineCore, channel: Channel) -> None:
    """Step while there is work, wait for messages while there is none; never returns."""
    while True:
        outputs = _take_messages(core, channel)
        if core.has_work or core.is_compiling:
            outputs += core.step()
        channel.send(StepOutputs(outputs, core.stats()))


def _take_messages(core: EngineCore, channel: Channel) -> list[TokenOutput]:
    """Handle everything that has arrived; blocks only while there is nothing to compute."""
    outputs: list[TokenOutput] = []
    must_wait = not core.has_work
    # A grammar is ready without a message.
    timeout_s = GRAMMAR_POLL_S if core.is_compiling else None
    while must_wait or not channel.received.empty():
        try:
            message = channel.received.get(timeout=timeout_s)
        except queue.Empty:
            break
        must_wait = False
        if isinstance(message, AddRequest):
            outputs += core.add(message)
        elif isinstance(message, AbortRequest):
            core.abort(message.request_id)
    return outputs


class Progress:
    """Reports a load's progress, not more often than somebody can read."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_s = 0.0

    def __call__(self, loaded_bytes: int, total_bytes: int) -> None:
        """Send a LoadProgress if the last one is long enough ago."""
        now = time.monotonic()
        if now - self._last_s >= PROGRESS_INTERVAL_S:
            self._last_s = now
            self._channel.send(LoadProgress(loaded_bytes, total_bytes))
