import pytest
import torch
from support.checkpoints import LLAMA3_ROPE, SIZES
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ondol.modeling.rope import RotaryTable

CPU = torch.device("cpu")
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
KINDS = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "other-theta": {"rope_type": "default", "rope_theta": 500000.0},
    "llama3": LLAMA3_ROPE,
    "linear": LINEAR,
    "yarn": YARN,
}


@pytest.mark.parametrize("head_dim", [16, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_equals_transformers_rotary_module(kind, head_dim):
    config = LlamaConfig(**SIZES, head_dim=head_dim, rope_parameters=dict(KINDS[kind]))
    table = RotaryTable(config, head_dim)
    table.build(512, torch.float32, CPU)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(512)[None])
    torch.testing.assert_close(table.cos, cos[0], rtol=0, atol=0)
    torch.testing.assert_close(table.sin, sin[0], rtol=0, atol=0)


def test_a_row_gets_the_angles_of_its_own_position():
    table = RotaryTable(LlamaConfig(**SIZES), 16)
    table.build(64, torch.float32, CPU)
    cos, sin = table.at(torch.tensor([63, 0, 5]))
    assert cos.shape == sin.shape == (3, 1, 16)
    torch.testing.assert_close(cos[:, 0], table.cos[[63, 0, 5]])
    assert torch.all(sin[1] == 0)


def test_angles_are_computed_in_float32_and_then_cast():
    table = RotaryTable(LlamaConfig(**SIZES), 16)
    table.build(512, torch.float32, CPU)
    exact = table.cos
    table.build(512, torch.bfloat16, CPU)
    assert table.cos.dtype is torch.bfloat16
    torch.testing.assert_close(table.cos, exact.bfloat16(), rtol=0, atol=0)
