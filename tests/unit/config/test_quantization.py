import pytest

from ondol.config import QuantizationSettings, load_settings
from ondol.errors import ConfigError


def test_all_fields_reach_the_engine():
    settings = load_settings(
        {
            "quantization": "nf4",
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_quant_storage": "float16",
            "bnb_4bit_quant_type": "nf4",
            "llm_int8_skip_modules": ("down_proj", "model.layers.0"),
            "quantize_lm_head": True,
        }
    )
    assert settings.engine().quantization == QuantizationSettings(
        method="nf4",
        compute_dtype="bfloat16",
        use_double_quant=True,
        quant_storage="float16",
        skip_modules=("down_proj", "model.layers.0"),
        quantize_lm_head=True,
    )


@pytest.mark.parametrize("method", ["none", "int8", "nf4", "fp4", "auto"])
def test_every_method_can_be_asked_for(method):
    assert load_settings({"quantization": method}).engine().quantization.method == method


def test_names_may_be_joined_by_commas_repeated_or_a_list(monkeypatch, tmp_path):
    expected = ("o_proj", "k_proj")
    assert load_settings({"llm_int8_skip_modules": ("o_proj", "k_proj")}).llm_int8_skip_modules == expected
    assert load_settings({"llm_int8_skip_modules": ("o_proj, k_proj",)}).llm_int8_skip_modules == expected
    config = tmp_path / "list.toml"
    config.write_text('llm_int8_skip_modules = ["o_proj", "k_proj"]\n', encoding="utf-8")
    assert load_settings({"config": str(config)}).llm_int8_skip_modules == expected
    monkeypatch.setenv("ONDOL_LLM_INT8_SKIP_MODULES", "o_proj,k_proj")
    assert load_settings({}).llm_int8_skip_modules == expected


@pytest.mark.parametrize("value", ["o_proj,", ["", "o_proj"], [7], 7])
def test_a_bad_list_of_names_is_named_with_its_source(value):
    with pytest.raises(ConfigError, match="flag --llm-int8-skip-modules"):
        load_settings({"llm_int8_skip_modules": value})


@pytest.mark.parametrize("threshold", ["6.0", "6", "0"])
def test_a_harmless_threshold_is_accepted(threshold):
    assert load_settings({"llm_int8_threshold": threshold}).llm_int8_threshold in (6.0, 0.0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("llm_int8_threshold", "5.0", "no outliers to set apart"),
        ("llm_int8_threshold", "nan", "no outliers to set apart"),
        ("llm_int8_enable_fp32_cpu_offload", "true", "never split between GPU and CPU"),
        ("llm_int8_has_fp16_weight", "true", "for training"),
        ("bnb_4bit_quant_storage", "int4", "uint8"),
        ("bnb_4bit_compute_dtype", "int8", "bfloat16"),
    ],
)
def test_what_would_be_ignored_is_refused_with_the_reason(key, value, reason):
    with pytest.raises(ConfigError, match=reason):
        load_settings({key: value})


def test_a_4_bit_type_that_contradicts_the_method_is_refused(monkeypatch):
    monkeypatch.setenv("ONDOL_QUANTIZATION", "nf4")
    assert load_settings({"bnb_4bit_quant_type": "nf4"}).quantization == "nf4"
    with pytest.raises(ConfigError, match=r"bnb-4bit-quant-type: 'fp4' .* contradicts .* nf4"):
        load_settings({"bnb_4bit_quant_type": "fp4"})


@pytest.mark.parametrize("method", ["none", "int8", "auto"])
def test_a_4_bit_type_means_nothing_to_other_methods(method):
    assert load_settings({"quantization": method, "bnb_4bit_quant_type": "fp4"}).quantization == method
