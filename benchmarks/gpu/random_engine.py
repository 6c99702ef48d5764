"""The engine itself, in this process, on a model with random weights.

Scheduler, block manager, model runner and core are those that serve; only the process round them is missing.
Knows nothing about figures. Invariant: the KV pool is what `engine.kv_cache` would give it, or smaller.
"""

import random
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.machine import Machine
from benchmarks.gpu.random_model import build_random
from benchmarks.gpu.shapes import ModelShape
from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.decode_step import DecodeStep
from ondol.engine.kv_cache import (
    KVPlan,
    KVShape,
    allocate,
    available_bytes,
    choose_kv_dtype,
    kv_dtype_name,
)
from ondol.engine.messages import AddRequest, TokenOutput
from ondol.engine.model_runner import ModelRunner
from ondol.engine.sampler import Sampler
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler
from ondol.engine.step_sizes import StepSizes
from ondol.engine.warm_up import RECORDING_S
from ondol.kernels.backend import REFERENCE
from ondol.kernels.kv_layer import kv_head_bytes
from ondol.modeling.decoder import Decoder, SparseFeedForward
from ondol.modeling.loading import Model

BLOCK_SIZE = 16
MAX_BATCHED_TOKENS = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True, slots=True)
class EngineSize:
    """What an engine is built for.

    Attributes:
        num_tokens: of the KV pool, as long as they fit.
        max_model_len: tokens of one request.
        max_num_seqs: requests that run at once.
        kv_cache_dtype: "auto" or "fp8".
        records_ahead: record graphs at the start, as the daemon does; else each when it is needed.
        host_share: of the layers' bytes that may stay in host memory.
    """

    num_tokens: int
    max_model_len: int
    max_num_seqs: int
    enable_prefix_caching: bool = False
    kv_cache_dtype: str = "auto"
    records_ahead: bool = False
    host_share: float = 0.0


@dataclass(frozen=True, slots=True)
class StepPath:
    """How steps run: as on a GPU, or without one thing or the other.

    Attributes:
        uses_graphs: as CUDA graphs where everybody decodes; on a CPU from the same buffers.
        overlaps: a step is launched before the tokens of the one before are read.
    """

    uses_graphs: bool = True
    overlaps: bool = True


class RandomEngine:
    """An engine core and what can be asked of it.

    Args:
        shape, kind: the model and how its weights are stored.
        machine: where it runs.
        size: the engine's bounds.
    """

    def __init__(self, shape: ModelShape, kind: str, machine: Machine, size: EngineSize) -> None:
        self.shape, self.kind = shape, kind
        self.device, self.dtype = device, dtype = machine.device, machine.dtype
        kernels = machine.kernels
        self.kernels_name = kernels.name
        self.model, self.offload = build_random(shape, kind, dtype, device, kernels, size.host_share)
        all_bytes = sum(parameter.nbytes for parameter in self.model.parameters())
        self.weights_bytes, _ = self.offload.split(all_bytes, is_host=device.type == "cpu")
        self.model.prepare(size.max_model_len)
        self._kv_dtype = choose_kv_dtype(size.kv_cache_dtype, dtype)
        plan, kv_shape = _plan(shape, self.model, self._kv_dtype, device, size)
        self.num_pool_tokens = plan.num_blocks * BLOCK_SIZE
        self.kv_bytes = plan.size_bytes
        vocab_size = shape.config["vocab_size"]
        # One block more, which padding writes to.
        cache = allocate(replace(plan, num_blocks=plan.num_blocks + 1), kv_shape, self._kv_dtype, device)
        sizes = StepSizes(size.max_num_seqs, size.max_model_len)
        self._decode_step = DecodeStep(self.model, cache, kernels, sizes, vocab_size, device)
        self._runner = ModelRunner(self.model, cache, Sampler(vocab_size, device, kernels), device, kernels)
        block_manager = BlockManager(plan.num_blocks, BLOCK_SIZE, size.enable_prefix_caching)
        self.scheduler = Scheduler(block_manager, size.max_num_seqs, MAX_BATCHED_TOKENS[device.type])
        self._core = EngineCore(self._runner, self.scheduler, frozenset(), size.max_model_len, vocab_size)
        # What waits for the device cannot be recorded, nor what copies beside it; `describe` names the path.
        waits = device.type != "cpu" and kernels.name == REFERENCE.name
        self._can_record = self.model.can_be_captured and not waits
        self.use(StepPath())
        if size.records_ahead and self._can_record:
            self._decode_step.record_ahead(budget_s=RECORDING_S)
        self._random = random.Random(0)
        self._vocab_size = vocab_size
        self._numbers = count()

    def use(self, path: StepPath) -> None:
        """Run the steps from now on this way, as far as the kernels can."""
        self._path = replace(path, uses_graphs=path.uses_graphs and self._can_record)
        self._runner.decode_step = self._decode_step if self._path.uses_graphs else None
        self._core.overlaps = path.overlaps

    def describe(self) -> dict[str, Any]:
        """What tells its figures from those of others."""
        return {
            **asdict(self._path),
            "model": self.shape.name,
            "kind": self.kind,
            "kv_dtype": kv_dtype_name(self._kv_dtype),
            "kernels": self.kernels_name,
        }

    @property
    def kv_element_bytes(self) -> float:
        """Of a key's or value's element, its share of a scale included."""
        return kv_head_bytes(self.model.head_dim, self._kv_dtype) / self.model.head_dim

    def open(self, num_prompt_tokens: int, max_tokens: int, *, num_output_tokens: int = 0) -> str:
        """Add a greedy request of random tokens, some of them taken as generated; returns its id."""
        return self.open_prompt(
            self.random_ids(num_prompt_tokens), max_tokens, output_ids=self.random_ids(num_output_tokens)
        )

    def open_prompt(
        self, prompt_ids: list[int], max_tokens: int, *, output_ids: list[int] | None = None
    ) -> str:
        """Add a greedy request; returns its id."""
        request_id = str(next(self._numbers))
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        refused = self._core.add(
            AddRequest(
                request_id=request_id, prompt_ids=prompt_ids, params=params, output_ids=output_ids or []
            )
        )
        self._check(refused)
        return request_id

    def step(self) -> list[TokenOutput]:
        """One step of the engine; what it brought, places in the queue left out."""
        outputs = self._core.step()
        self._check(outputs)
        return [output for output in outputs if output.queue_position is None]

    def close_all(self) -> None:
        """Give every open request up."""
        for request in (*self.scheduler.running, *self.scheduler.waiting):
            self._core.abort(request.request_id)

    def prefill_all(self) -> None:
        """Step until every open request decodes."""
        while self.scheduler.waiting or any(
            request.num_uncomputed_tokens > 1 for request in self.scheduler.running
        ):
            self.step()

    def mean_context(self) -> float:
        """Tokens of a running request, mean."""
        running = self.scheduler.running
        return sum(request.num_tokens for request in running) / max(1, len(running))

    def count_active_experts(self) -> float | None:
        """Different experts that a layer's rows go to in one step, mean; None without experts.

        Runs one step, without a graph: that would not call the router's module.
        """
        counts: list[int] = []

        def note(module: nn.Module, inputs: tuple[object, ...], logits: torch.Tensor) -> None:
            del module, inputs
            counts.append(logits.topk(top_k, dim=-1).indices.unique().numel())

        hooks = []
        for _, module in self.model.named_modules():
            if isinstance(module, SparseFeedForward):
                top_k = module.sizes.num_experts_per_token
                hooks.append(module.get_submodule("router").register_forward_hook(note))
        if hooks:
            self._runner.decode_step = None
            self.step()
            self.use(self._path)
        for hook in hooks:
            hook.remove()
        return sum(counts) / len(counts) if counts else None

    def random_ids(self, num_tokens: int) -> list[int]:
        """Token ids, a new draw each time."""
        return self._random.choices(range(self._vocab_size), k=num_tokens)

    @staticmethod
    def _check(outputs: list[TokenOutput]) -> None:
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(f"request {output.request_id} failed: {output.error}")


def _plan(
    shape: ModelShape, model: Model, kv_dtype: torch.dtype, device: torch.device, size: EngineSize
) -> tuple[KVPlan, KVShape]:
    """As many blocks as were asked for, or as the memory that is left holds."""
    assert isinstance(model, Decoder), "the measured families have a decoder of their own"
    kv_shape = KVShape(shape.config["num_hidden_layers"], model.num_kv_heads, model.head_dim)
    block_bytes = kv_shape.bytes_per_token(kv_dtype) * BLOCK_SIZE
    num_blocks = min(-(-size.num_tokens // BLOCK_SIZE), available_bytes(device) // block_bytes)
    plan = KVPlan(num_blocks, BLOCK_SIZE, size.max_model_len, num_blocks * block_bytes)
    return plan, kv_shape
