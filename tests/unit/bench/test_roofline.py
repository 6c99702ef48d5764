"""The ceiling's arithmetic, checked against real models' known sizes and against hand-made loads."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen2MoeConfig

from ondol.bench.roofline import Load, MachineRates, ModelCost, ceiling_of
from ondol.errors import ModelRefused
from ondol.kernels.kv_layer import FLOAT8, make_kv_layer

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
STARTER = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
MOE = {
    **TINY,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "mlp_only_layers": [0],
    "decoder_sparse_step": 2,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**TINY, tie_word_embeddings=False),
        LlamaConfig(**TINY, tie_word_embeddings=True, head_dim=16),
        MistralConfig(**TINY, sliding_window=8),
        Qwen2Config(**TINY),
        Qwen2MoeConfig(**MOE),
    ],
    ids=lambda config: config.model_type,
)
def test_counted_weights_are_all_the_matrices_of_the_real_model(config):
    model = AutoModelForCausalLM.from_config(config)
    # Norms and biases are vectors, the shared expert's gate one row: left out, as the roofline says.
    expected = sum(p.numel() for p in model.parameters() if p.ndim > 1 and p.shape[0] > 1)
    assert ModelCost.of_config(config.to_dict()).num_weight_elements == expected


def test_the_starter_reads_half_a_gigabyte_for_each_token():
    cost = ModelCost.of_config(STARTER)
    assert cost.step_elements(batch=1) * 4 == pytest.approx(538e6, rel=0.001)
    assert cost.kv_elements_per_token == 2 * 30 * 3 * 64


def test_more_streams_read_more_experts_but_never_all_of_them_twice():
    cost = ModelCost.of_config(MOE)
    dense = cost.dense_elements + cost.head_elements
    assert cost.step_elements(1) == pytest.approx(dense + 2 * cost.expert_elements)
    assert cost.step_elements(1) < cost.step_elements(8) < cost.step_elements(100)
    assert cost.step_elements(1000) == pytest.approx(dense + 6 * cost.expert_elements)


def test_a_sliding_window_bounds_what_attention_costs():
    cost = ModelCost.of_config({**TINY, "sliding_window": 8})
    assert cost.attention_flops(1000) == cost.attention_flops(8)
    unbounded = ModelCost.of_config({**TINY, "sliding_window": 8, "use_sliding_window": False})
    assert unbounded.attention_flops(1000) > cost.attention_flops(1000)


def test_one_stream_is_bound_by_reading_the_weights():
    cost = ModelCost.of_config(STARTER)
    load = Load(1, 1, mean_input_tokens=1, mean_cached_tokens=0, mean_output_tokens=101)
    ceiling = ceiling_of(load, cost, MachineRates(memory_gb_per_s=20, gemm_gflop_per_s=200), "float32")
    weights_s = 100 * 538e6 / 20e9
    assert ceiling.bound == "memory"
    assert ceiling.memory_s == pytest.approx(weights_s, rel=0.02)
    assert ceiling.output_tokens_per_s == pytest.approx(101 / weights_s, rel=0.02)


def test_many_streams_share_one_reading_until_multiplying_binds():
    cost = ModelCost.of_config(STARTER)
    rates = MachineRates(memory_gb_per_s=20, gemm_gflop_per_s=200)
    one, many = (ceiling_of(Load(n, n, 10, 0, 50), cost, rates, "float32") for n in (1, 64))
    assert many.output_tokens_per_s > 10 * one.output_tokens_per_s
    assert many.bound == "compute"


def test_cached_input_costs_no_multiplications():
    cost = ModelCost.of_config(STARTER)
    rates = MachineRates(20, 200)
    cold, warm = (ceiling_of(Load(1, 1, 1000, cached, 1), cost, rates, "float32") for cached in (0, 990))
    assert warm.compute_s < cold.compute_s / 20


@pytest.mark.parametrize("config", [{}, {"hidden_size": 3}, {**TINY, "num_hidden_layers": "many"}])
def test_a_config_of_another_kind_is_refused(config):
    with pytest.raises(ModelRefused, match=r"config\.json"):
        ModelCost.of_config(config)


def test_a_float8_cache_is_a_byte_for_each_element_and_a_scale_for_each_head():
    cost = ModelCost.of_config(STARTER)  # 30 layers of 3 KV heads of 64 elements
    heads = 2 * 30 * 3
    assert cost.kv_bytes_per_token("float32") == heads * 64 * 4
    assert cost.kv_bytes_per_token("bfloat16", "fp8") == heads * (64 + 2)
    layer = make_kv_layer(1, 1, (3, 64), FLOAT8, torch.device("cpu"))
    assert cost.kv_bytes_per_token("float32", "fp8") == 30 * sum(part.nbytes for part in layer.tensors())


def test_a_smaller_cache_raises_the_ceiling_of_long_contexts():
    cost, rates = ModelCost.of_config(STARTER), MachineRates(20, 1e9)
    load = Load(64, 64, mean_input_tokens=2000, mean_cached_tokens=0, mean_output_tokens=100)
    plain, float8 = (ceiling_of(load, cost, rates, "bfloat16", dtype) for dtype in ("auto", "fp8"))
    kv_bytes = 99 * 64 * 2050 * 2 * 30 * 3 * 64
    assert plain.memory_s - float8.memory_s == pytest.approx(kv_bytes * (2 - 66 / 64) / 20e9, rel=1e-4)
