import random

import pytest
import torch
from support.checkpoints import FAMILIES, VOCAB_SIZE, reference_model, save_checkpoint
from support.forward import prompt_logits

from ondol.modeling.architecture import describe
from ondol.modeling.decoder import Decoder
from ondol.modeling.generic import GenericModel
from ondol.modeling.layer_factory import PlainLayers
from ondol.modeling.loading import choose_dtype, load_model

CPU = torch.device("cpu")
OTHERS = ("qwen3", "phi3", "olmo2")


def some_prompts():
    generator = random.Random(0)
    return [[generator.randrange(VOCAB_SIZE) for _ in range(length)] for length in (40, 1, 17)]


def reference_logits(model, prompts):
    with torch.no_grad():
        return [model(torch.tensor([prompt])).logits[0] for prompt in prompts]


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_prompts_get_the_logits_that_transformers_computes(tmp_path, family):
    folder = save_checkpoint(tmp_path, family)
    weights = load_model(folder, CPU, "float32")
    assert isinstance(weights.model, GenericModel if family in OTHERS else Decoder)
    prompts = some_prompts()
    expected = reference_logits(reference_model(folder), prompts)
    for ours, reference in zip(prompt_logits(weights, prompts), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama-3-rope", "qwen2_moe", "qwen3"])
def test_bfloat16_stays_near_the_float32_reference(tmp_path, family):
    folder = save_checkpoint(tmp_path, family)
    weights = load_model(folder, CPU, "bfloat16")
    assert weights.dtype is torch.bfloat16
    prompts = some_prompts()
    expected = torch.cat(reference_logits(reference_model(folder), prompts))
    ours = torch.cat(prompt_logits(weights, prompts))
    assert ours.dtype is torch.float32
    # 8 bits of mantissa through three layers: the directions agree, single logits differ.
    assert torch.cosine_similarity(ours, expected, dim=-1).min() > 0.98


def test_a_prompt_beside_others_gets_the_logits_that_it_gets_alone(tmp_path):
    weights = load_model(save_checkpoint(tmp_path, "qwen2_moe"), CPU, "float32")
    prompts = some_prompts()
    together = prompt_logits(weights, prompts)
    for prompt, ours in zip(prompts, together, strict=True):
        (alone,) = prompt_logits(weights, [prompt])
        torch.testing.assert_close(ours, alone, rtol=0, atol=1e-4)


def test_numbers_of_the_load_describe_the_model(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    weights = load_model(folder, CPU, "bfloat16")
    assert (weights.vocab_size, weights.num_layers, weights.num_kv_heads, weights.head_dim) == (512, 3, 2, 16)
    assert weights.context_length == 512
    assert weights.weights_bytes == 2 * sum(parameter.numel() for parameter in weights.model.parameters())
    assert weights.notes == ()


def test_auto_computes_in_float32_on_a_cpu_and_as_stored_on_a_gpu(tmp_path):
    config = reference_model(save_checkpoint(tmp_path, "llama")).config
    config.dtype = torch.float16
    assert choose_dtype("auto", config, CPU) is torch.float32
    assert choose_dtype("auto", config, torch.device("cuda")) is torch.float16
    assert choose_dtype("bfloat16", config, CPU) is torch.bfloat16
    config.dtype = None
    assert choose_dtype("auto", config, torch.device("cuda")) is torch.bfloat16


def test_every_tensor_of_a_checkpoint_has_one_slot(tmp_path):
    model = reference_model(save_checkpoint(tmp_path, "llama"))
    with torch.device("meta"):
        decoder = Decoder(describe(model.config), PlainLayers(torch.float32))
    assert sorted(name for slot in decoder.slots() for name in slot.names) == sorted(model.state_dict())
