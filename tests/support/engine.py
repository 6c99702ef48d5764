"""An engine core on a checkpoint, in this process, and a way to run requests to their end."""

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.decode_step import DecodeStep
from ondol.engine.grammar_compiler import GrammarCompiler, GrammarQueue
from ondol.engine.kv_cache import KVPlan, KVShape, allocate, choose_kv_dtype
from ondol.engine.messages import AddRequest, TokenOutput
from ondol.engine.model_runner import ModelRunner
from ondol.engine.sampler import Sampler
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler
from ondol.engine.step_sizes import StepSizes
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")


def build_core(
    folder: Path,
    *,
    num_blocks: int = 256,
    block_size: int = 4,
    max_num_seqs: int = 16,
    max_num_batched_tokens: int = 64,
    enable_prefix_caching: bool = True,
    end_token_ids: frozenset[int] = frozenset(),
    on_load: OnLoad | None = None,
    max_prompt_logits: int = 512,
    kernels: Kernels = REFERENCE,
    overlaps: bool = False,
    uses_buffers: bool = False,
    kv_cache_dtype: str = "auto",
    offload_bytes: int = 0,
) -> EngineCore:
    """Load a folder in float32 and build the engine round it, with a pool of the given size.

    Args:
        overlaps: launch a step before the tokens of the one before are read, as on a GPU.
        uses_buffers: run steps in which everybody decodes from static buffers, as on a GPU.
    """
    weights = load_model(
        folder, CPU, "float32", on_load=on_load, kernels=kernels, offload_bytes=offload_bytes
    )
    shape = KVShape(weights.num_layers, weights.num_kv_heads, weights.head_dim)
    max_model_len = min(weights.context_length, num_blocks * block_size)
    weights.model.prepare(max_model_len)
    # Padding writes to a block that the block manager does not know.
    plan = KVPlan(num_blocks + uses_buffers, block_size, max_model_len, 0)
    cache = allocate(plan, shape, choose_kv_dtype(kv_cache_dtype, weights.dtype), CPU)
    decode_step = None
    if uses_buffers:
        sizes = StepSizes(max_num_seqs, max_model_len)
        decode_step = DecodeStep(weights.model, cache, kernels, sizes, weights.vocab_size, CPU)
    sampler = Sampler(weights.vocab_size, CPU, kernels)
    runner = ModelRunner(weights.model, cache, sampler, CPU, kernels, decode_step)
    block_manager = BlockManager(num_blocks, block_size, enable_prefix_caching)
    scheduler = Scheduler(block_manager, max_num_seqs, max_num_batched_tokens, max_prompt_logits)
    compiler = GrammarCompiler(folder, weights.vocab_size, end_token_ids)
    return EngineCore(
        runner,
        scheduler,
        end_token_ids,
        max_model_len,
        weights.vocab_size,
        GrammarQueue(compiler.compile),
        overlaps=overlaps,
    )


def greedy(max_tokens: int) -> SamplingParams:
    """Greedy decoding of exactly `max_tokens` tokens."""
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)


def run_outputs(core: EngineCore, messages: Iterable[AddRequest]) -> dict[str, list[TokenOutput]]:
    """Run requests together; what each of them got, places in the queue left out. Fails if one never ends."""
    messages = list(messages)
    outputs = [output for message in messages for output in core.add(message)]
    deadline_s = time.monotonic() + 60
    while core.has_work or core.is_compiling:
        outputs += core.step()
        if not core.has_work and core.is_compiling:
            time.sleep(0.001)
        assert time.monotonic() < deadline_s, "the engine did not finish"
    found: dict[str, list[TokenOutput]] = {message.request_id: [] for message in messages}
    for output in (output for output in outputs if output.queue_position is None):
        found[output.request_id].append(output)
    return found


def run_to_end(
    core: EngineCore, requests: dict[str, tuple[list[int], SamplingParams]]
) -> dict[str, list[int]]:
    """Run requests together; their output ids. Fails if one ends with an error or never ends."""
    messages = (
        AddRequest(request_id=request_id, prompt_ids=prompt_ids, params=params)
        for request_id, (prompt_ids, params) in requests.items()
    )
    tokens: dict[str, list[int]] = {}
    for request_id, outputs in run_outputs(core, messages).items():
        tokens[request_id] = []
        for output in outputs:
            assert output.error is None, output.error
            assert output.first_index == len(tokens[request_id]), "outputs are deltas in order"
            tokens[request_id] += output.token_ids
    return tokens
