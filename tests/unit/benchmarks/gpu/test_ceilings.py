"""The GPU ceilings agree with the arithmetic that the project was planned by, and with the built models."""

import pytest
import torch
from transformers import CONFIG_MAPPING

from benchmarks.gpu.ceilings import DeviceRates, decode_ceiling, prefill_ms, request_rate, weights_bytes
from benchmarks.gpu.random_model import layers_of
from benchmarks.gpu.shapes import LLAMA_2_7B, MODELS, QWEN1_5_7B, QWEN1_5_MOE, QWEN2_7B
from ondol.modeling.loading import build_model

H100 = DeviceRates(copy_bytes_per_s=3.0e12, gemm_flop_per_s=798e12)
H200 = DeviceRates(copy_bytes_per_s=4.3e12, gemm_flop_per_s=788e12)
CONTEXT = 512

# (model, kind, batch) -> ms of a step on an H100 and on an H200, at a context of 512 tokens.
PLANNED = [
    (LLAMA_2_7B, "bf16", 1, 4.49, 3.14),
    (LLAMA_2_7B, "bf16", 64, 10.1, 7.1),
    (LLAMA_2_7B, "int4", 1, 1.29, 0.90),
    (LLAMA_2_7B, "nf4-double", 64, 6.9, 4.8),
    (QWEN2_7B, "bf16", 1, 4.72, 3.30),
    (QWEN2_7B, "bf16", 64, 5.3, 3.7),
    (QWEN2_7B, "int4", 1, 1.50, 1.05),
    (QWEN2_7B, "int4", 64, 2.1, 1.5),
    (QWEN1_5_MOE, "bf16", 1, 1.62, 1.13),
    (QWEN1_5_MOE, "bf16", 64, 11.4, 7.9),
    (QWEN1_5_MOE, "nf4-double", 1, 0.60, 0.42),
    (QWEN1_5_MOE, "int4", 64, 4.7, 3.3),
]


@pytest.mark.parametrize(("shape", "kind", "batch", "h100_ms", "h200_ms"), PLANNED)
def test_decode_steps_take_what_was_planned(shape, kind, batch, h100_ms, h200_ms):
    ceiling = decode_ceiling(shape.config, kind, batch, CONTEXT)
    assert ceiling.step_ms(H100) == pytest.approx(h100_ms, rel=0.02)
    assert ceiling.step_ms(H200) == pytest.approx(h200_ms, rel=0.02)
    assert ceiling.tokens_per_s(H100) == pytest.approx(batch / h100_ms * 1e3, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "kind", "kv_element_bytes", "requests_per_s"),
    [
        (LLAMA_2_7B, "bf16", 2, 2.84),
        (LLAMA_2_7B, "bf16", 1, 5.27),
        (QWEN1_5_7B, "bf16", 2, 2.9),
        (QWEN1_5_MOE, "bf16", 2, 5.71),
        (QWEN1_5_MOE, "int4", 2, 8.3),
        (QWEN1_5_MOE, "int4", 1, 15.3),
    ],
)
def test_saturated_requests_come_near_what_was_planned(shape, kind, kv_element_bytes, requests_per_s):
    # How the plan split memory and overlapped prompts is not written down: the agreement is a loose one.
    found = request_rate(shape.config, kind, (1000, 1000), 72e9, H100, kv_element_bytes=kv_element_bytes)
    assert found == pytest.approx(requests_per_s, rel=0.1)


@pytest.mark.parametrize("kind", ["bf16", "int8", "nf4", "int4"])
@pytest.mark.parametrize("shape", MODELS, ids=lambda shape: shape.name)
def test_bytes_are_those_of_the_model_as_it_is_built(shape, kind):
    config = CONFIG_MAPPING[shape.model_type](**shape.config)
    model = build_model(config, layers_of(kind, torch.bfloat16))
    built_bytes = sum(parameter.nbytes for parameter in model.parameters())
    # Norms, biases and int8's scales are left out.
    assert weights_bytes(shape.config, kind) == pytest.approx(built_bytes, rel=0.003)
    assert weights_bytes(shape.config, kind) <= built_bytes


def test_counted_experts_replace_the_expectation():
    expected = decode_ceiling(QWEN1_5_MOE.config, "bf16", 64, CONTEXT)
    counted = decode_ceiling(QWEN1_5_MOE.config, "bf16", 64, CONTEXT, num_active_experts=30)
    assert counted.weight_bytes < expected.weight_bytes
    all_of_them = decode_ceiling(QWEN1_5_MOE.config, "bf16", 64, CONTEXT, num_active_experts=60)
    assert all_of_them.weight_bytes > expected.weight_bytes


def test_a_prompt_is_bound_by_arithmetic():
    # 2 operations for each of 6.48e9 weights and of the scores, a thousand times.
    assert prefill_ms(LLAMA_2_7B.config, 1000, H100) == pytest.approx(16.6, rel=0.02)
