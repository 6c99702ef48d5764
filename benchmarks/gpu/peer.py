"""transformers on the same shapes in the same run: `generate`, and its own continuous batching.

Without FlashAttention, which is not installed, its continuous batching is a weak baseline: whoever compares
says so. Invariant: greedy, random prompts, random weights drawn on the device, as for the engine.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.gpu.machine import Machine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.timing import spread, synchronize


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """What transformers is asked for.

    Attributes:
        batches: of `generate`, each with `context` tokens before.
        num_requests: of continuous batching, `num_in` tokens in and `num_batched_out` out.
        continuous_batching: its settings; None leaves them to transformers.
    """

    batches: tuple[int, ...] = (1, 8, 64)
    context: int = 256
    num_out: int = 32
    num_repeats: int = 3
    num_requests: int = 64
    num_in: int = 1000
    num_batched_out: int = 128
    continuous_batching: ContinuousBatchingConfig | None = None


# By itself it takes nine tenths of a CPU's memory, too.
SMOKE_PLAN = PeerPlan(
    batches=(2,),
    context=8,
    num_out=4,
    num_requests=2,
    num_in=8,
    num_batched_out=3,
    continuous_batching=ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64),
)


def measure_peer(recorder: Recorder, machine: Machine, shape: ModelShape, plan: PeerPlan) -> None:
    """`generate` at each batch, then continuous batching."""
    model = _build(shape, machine)
    common = {"model": shape.name, "kind": "bf16", "attention": model.config._attn_implementation}

    def generate(batch: int) -> None:
        found = _generate(model, machine, batch, plan)
        recorder.figure("transformers generate", **common, batch=batch, context=plan.context, **found)

    def batch_continuously() -> None:
        found = _continuous_batching(model, machine, plan)
        recorder.figure("transformers continuous batching", **common, **found)

    for batch in plan.batches:
        recorder.attempt(f"generate {shape.name} batch {batch}", partial(generate, batch))
    machine.free_memory()
    recorder.attempt(f"continuous batching {shape.name}", batch_continuously)


def _build(shape: ModelShape, machine: Machine) -> Any:  # noqa: ANN401 - transformers is untyped here
    config = CONFIG_MAPPING[shape.model_type](**shape.config)
    torch.manual_seed(0)
    with torch.device(machine.device):
        model = AutoModelForCausalLM.from_config(config, dtype=machine.dtype, attn_implementation="sdpa")
    # What a generation config leaves open is taken from these.
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    return model.eval()


def _generate(model: Any, machine: Machine, batch: int, plan: PeerPlan) -> dict[str, Any]:  # noqa: ANN401
    """Milliseconds of a step: what further tokens take beyond the first."""
    ids = torch.randint(model.config.vocab_size, (batch, plan.context), device=machine.device)

    def run_s(num_tokens: int) -> float:
        settings = _greedy(num_tokens)
        synchronize(machine.device)
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        synchronize(machine.device)
        return time.perf_counter() - started

    run_s(2)
    first_s = min(run_s(1) for _ in range(plan.num_repeats))
    step_ms = [(run_s(plan.num_out + 1) - first_s) * 1e3 / plan.num_out for _ in range(plan.num_repeats)]
    found = spread(step_ms)
    return {"step_ms": found, "tokens_per_s": batch * 1e3 / found["median"], "ttft_ms": first_s * 1e3}


def _continuous_batching(model: Any, machine: Machine, plan: PeerPlan) -> dict[str, Any]:  # noqa: ANN401
    vocab_size = model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(vocab_size, (plan.num_requests, plan.num_in), generator=generator).tolist()
    settings = _greedy(plan.num_batched_out)
    options = {"continuous_batching_config": plan.continuous_batching, "progress_bar": False}
    model.generate_batch(inputs=prompts[:1], generation_config=_greedy(2), **options)
    synchronize(machine.device)
    started = time.perf_counter()
    answers = model.generate_batch(inputs=prompts, generation_config=settings, **options)
    synchronize(machine.device)
    elapsed_s = time.perf_counter() - started
    num_tokens = sum(len(answer.generated_tokens) for answer in answers.values())
    if num_tokens != plan.num_requests * plan.num_batched_out:
        raise RuntimeError(f"continuous batching gave {num_tokens} tokens for {plan.num_requests} requests")
    return {
        "num_requests": plan.num_requests,
        "num_in": plan.num_in,
        "num_out": plan.num_batched_out,
        "output_tokens_per_s": num_tokens / elapsed_s,
        "total_tokens_per_s": num_tokens * (1 + plan.num_in / plan.num_batched_out) / elapsed_s,
    }


def _greedy(num_tokens: int) -> GenerationConfig:
    """Exactly so many tokens: the models know no token that would end a generation."""
    return GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
