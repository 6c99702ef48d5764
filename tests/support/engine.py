"""An engine core on a checkpoint, in this process, and a way to run requests to their end."""

from pathlib import Path

import torch

from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.kv_cache import KVPlan, KVShape, allocate
from ondol.engine.messages import AddRequest, TokenOutput
from ondol.engine.model_runner import ModelRunner
from ondol.engine.sampler import Sampler
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler
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
) -> EngineCore:
    """Load a folder in float32 and build the engine round it, with a pool of the given size."""
    weights = load_model(folder, CPU, "float32", on_load=on_load)
    shape = KVShape(weights.num_layers, weights.num_kv_heads, weights.head_dim)
    max_model_len = min(weights.context_length, num_blocks * block_size)
    weights.model.prepare(max_model_len)
    cache = allocate(KVPlan(num_blocks, block_size, max_model_len, 0), shape, weights.dtype, CPU)
    runner = ModelRunner(weights.model, cache, Sampler.build(weights.vocab_size, CPU), CPU)
    block_manager = BlockManager(num_blocks, block_size, enable_prefix_caching)
    scheduler = Scheduler(block_manager, max_num_seqs, max_num_batched_tokens)
    return EngineCore(runner, scheduler, block_manager, end_token_ids, max_model_len, weights.vocab_size)


def greedy(max_tokens: int) -> SamplingParams:
    """Greedy decoding of exactly `max_tokens` tokens."""
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)


def run_to_end(
    core: EngineCore, requests: dict[str, tuple[list[int], SamplingParams]]
) -> dict[str, list[int]]:
    """Run requests together; their output ids. Fails if one ends with an error or never ends."""
    outputs: list[TokenOutput] = []
    for request_id, (prompt_ids, params) in requests.items():
        outputs += core.add(AddRequest(request_id=request_id, prompt_ids=prompt_ids, params=params))
    for _ in range(10_000):
        if not core.has_work:
            break
        outputs += core.step()
    else:
        raise AssertionError("the engine did not finish")
    tokens: dict[str, list[int]] = {request_id: [] for request_id in requests}
    for output in outputs:
        assert output.error is None, output.error
        assert output.first_index == len(tokens[output.request_id]), "outputs are deltas in order"
        tokens[output.request_id] += output.token_ids
    return tokens
