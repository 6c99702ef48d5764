import json

import pytest

from ondol.model_manager.published_config import PublishedConfig, quantization_text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (None, None),
        ({}, None),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq 8-bit"),
        ({"quant_method": "awq", "w_bit": 4}, "awq 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "bitsandbytes nf4",
        ),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            "compressed-tensors pack-quantized",
        ),
        ("nonsense", None),
    ],
)
def test_a_quantization_config_is_told_in_two_words(settings, text):
    assert quantization_text(settings) == text


def test_facts_are_those_of_the_files(tmp_path):
    config = {"model_type": "qwen2", "torch_dtype": "bfloat16", "max_position_embeddings": 32768}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert PublishedConfig.read(tmp_path) == PublishedConfig("qwen2", "bfloat16", None, 32768, True)


@pytest.mark.parametrize("content", ["", "<html>", "[]", '{"max_position_embeddings": "many"}'])
def test_a_damaged_file_says_nothing(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert PublishedConfig.read(tmp_path) == PublishedConfig(None, None, None, None, False)


def test_a_template_in_a_file_of_its_own_counts(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert PublishedConfig.read(tmp_path).has_chat_template
