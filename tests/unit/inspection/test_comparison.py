import json

import pytest

from ondol.inspection.comparison import compare_models


@pytest.fixture(scope="module")
def comparison(published):
    return compare_models(published("qwen2-1.5b-instruct-gptq-int8"), published("llama-3-8b-instruct"))


def test_both_columns_have_the_same_rows(comparison):
    first, second = dict(comparison.first.values()), dict(comparison.second.values())
    assert list(first) == list(second)
    assert (first["hidden_size"], second["hidden_size"]) == (1536, 4096)
    assert (first["num_kv_heads"], second["num_kv_heads"]) == (2, 8)
    assert (first["rope"], second["rope"]) == ("theta 1000000", "theta 500000")
    assert (first["is_tied"], second["is_tied"]) == (True, False)
    assert (first["quantization"], second["quantization"]) == ("gptq 8-bit", None)
    assert (first["kv_bytes_per_token"], second["kv_bytes_per_token"]) == (28 * 1024, 128 * 1024)


def test_quantization_does_not_cut_three_quarters_off_sixteen_bits(comparison):
    """Only against 32 bits: the seeds' tables forget scales and what is not quantized."""
    sizes = comparison.second.form_bytes
    assert sizes["fp16"] * 2 == sizes["fp32"]
    assert 0.5 < sizes["int8"] / sizes["fp16"] < 0.6
    assert 0.35 < sizes["nf4"] / sizes["fp16"] < 0.4
    assert sizes["nf4-double"] < sizes["nf4"]


def test_models_that_differ_more_than_twofold_are_uneven(comparison, published):
    assert comparison.is_uneven
    assert comparison.size_ratio == pytest.approx(5.2, abs=0.01)
    even = compare_models(published("llama-2-7b-chat-hf"), published("mistral-7b-v0.1"))
    assert not even.is_uneven


def test_programs_read_the_same_rows(comparison):
    report = json.loads(json.dumps(comparison.to_json()))
    assert [model["num_layers"] for model in report["models"]] == [28, 32]
    assert report["is_uneven"] is True
