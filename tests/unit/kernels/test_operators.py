import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, Qwen2MoeConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from ondol.kernels.operators import mixture_of_experts, rms_norm, rotate, route, silu_mul


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_equals_transformers_bit_for_bit(dtype):
    module = LlamaRMSNorm(32, eps=1e-5).to(dtype)
    module.weight.data.normal_(mean=1.0)
    hidden = torch.randn(5, 32).to(dtype) * 3
    ours = rms_norm(hidden, module.weight.data, 1e-5)
    assert ours.dtype is dtype
    assert torch.equal(ours, module(hidden))


def test_the_norm_of_a_row_of_zeros_is_zero():
    assert torch.equal(rms_norm(torch.zeros(1, 8), torch.ones(8), 1e-6), torch.zeros(1, 8))


def test_the_norm_does_not_overflow_in_float16():
    hidden = torch.full((1, 8), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(rms_norm(hidden, torch.ones(8).half(), 1e-6), torch.ones(1, 8).half())


def test_rotation_equals_transformers():
    states = torch.randn(6, 3, 8)
    angles = torch.randn(6, 4).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    # transformers' layout is [batch, heads, T, head_dim].
    expected, _ = apply_rotary_pos_emb(
        states.transpose(0, 1)[None], states.transpose(0, 1)[None], cos[None], sin[None]
    )
    torch.testing.assert_close(rotate(states, cos[:, None], sin[:, None]), expected[0].transpose(0, 1))


def test_rotation_keeps_lengths_and_position_zero_keeps_the_states():
    states = torch.randn(2, 3, 8)
    angles = torch.stack((torch.zeros(8), torch.randn(4).repeat(2)))[:, None]
    rotated = rotate(states, angles.cos(), angles.sin())
    torch.testing.assert_close(rotated[0], states[0])
    torch.testing.assert_close(rotated.norm(dim=-1), states.norm(dim=-1))


def test_the_gated_product_equals_transformers_feed_forward():
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=4)
    module = LlamaMLP(config)
    hidden = torch.randn(5, 16)
    gate_up = torch.cat((module.gate_proj.weight, module.up_proj.weight))
    with torch.no_grad():
        ours = F.linear(silu_mul(F.linear(hidden, gate_up)), module.down_proj.weight)
        torch.testing.assert_close(ours, module(hidden))


@pytest.mark.parametrize("normalize", [True, False])
def test_routing_keeps_the_likeliest_experts_and_their_probabilities(normalize):
    logits = torch.randn(7, 8)
    weights, experts = route(logits, 3, normalize)
    probabilities = logits.double().softmax(dim=-1)
    expected, order = probabilities.sort(dim=-1, descending=True)
    expected = expected[:, :3]
    if normalize:
        expected = expected / expected.sum(dim=-1, keepdim=True)
    assert torch.equal(experts, order[:, :3])
    torch.testing.assert_close(weights, expected.float())


def test_routing_weights_have_the_type_of_their_logits():
    assert route(torch.randn(2, 8).bfloat16(), 2, True)[0].dtype is torch.bfloat16


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("num_rows", [1, 13])
def test_experts_equal_transformers_sparse_block(num_rows, normalize):
    config = Qwen2MoeConfig(
        hidden_size=16,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=20,
        num_experts=6,
        num_experts_per_tok=2,
        norm_topk_prob=normalize,
    )
    block = Qwen2MoeSparseMoeBlock(config)
    for parameter in block.parameters():
        parameter.data.normal_(std=0.3)
    hidden = torch.randn(num_rows, 16)
    with torch.no_grad():
        expected = block(hidden[None])
        expected = (expected[0] if isinstance(expected, tuple) else expected).view(num_rows, 16)
        weights, experts = route(F.linear(hidden, block.gate.weight), 2, normalize)
        routed = mixture_of_experts(
            hidden, weights, experts, block.experts.gate_up_proj, block.experts.down_proj
        )
        shared = F.sigmoid(block.shared_expert_gate(hidden)) * block.shared_expert(hidden)
    torch.testing.assert_close(routed + shared, expected)


def test_an_expert_that_nobody_chose_is_not_computed():
    gate_up, down = torch.randn(3, 8, 4), torch.randn(3, 4, 4)
    gate_up[2] = float("nan")
    output = mixture_of_experts(torch.randn(2, 4), torch.ones(2, 1), torch.tensor([[0], [1]]), gate_up, down)
    assert torch.isfinite(output).all()
