"""Checkpoints that transformers and bitsandbytes themselves saved, read here."""

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.forward import prompt_logits
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ondol.modeling.loading import load_model

CPU = torch.device("cpu")
PROMPT = list(range(5, 35))
# bitsandbytes' own product on a CPU is wrong where rows are no multiple of its blocks.
WHOLE_BLOCKS = {"intermediate_size": 128}


def saved_by_transformers(folder, family, **options):
    """A folder that transformers wrote, and what its quantized model computes."""
    source = save_checkpoint(folder / "source", family, **WHOLE_BLOCKS)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**options)
    )
    model.save_pretrained(folder / "saved")
    # With gradients: without them bitsandbytes repacks 4-bit weights for a bfloat16 kernel.
    return folder / "saved", model(torch.tensor([PROMPT])).logits[0].detach().float()


@pytest.mark.parametrize("family", ["qwen2", "qwen2_moe", "qwen3"])
@pytest.mark.parametrize(
    "options",
    [
        {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"},
    ],
    ids=["nf4-double", "fp4-bfloat16-storage"],
)
def test_four_bit_checkpoints_compute_what_bitsandbytes_computes(tmp_path, family, options):
    folder, expected = saved_by_transformers(
        tmp_path, family, load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **options
    )
    (ours,) = prompt_logits(load_model(folder, CPU, "float32"), [PROMPT])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_eight_bit_checkpoints_stay_near_llm_int8_which_rounds_activations(tmp_path):
    folder, expected = saved_by_transformers(tmp_path, "qwen2", load_in_8bit=True)
    (ours,) = prompt_logits(load_model(folder, CPU, "float32"), [PROMPT])
    assert torch.cosine_similarity(ours, expected, dim=-1).min() > 0.99
