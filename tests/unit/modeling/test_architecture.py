import json

import pytest
import torch
from support.checkpoints import FAMILIES, SIZES, save_checkpoint

from ondol.errors import ModelRefused
from ondol.modeling.architecture import describe, read_config
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")


def write_config(folder, text):
    (folder / "config.json").write_text(text if isinstance(text, str) else json.dumps(text))
    return folder


def config_of(folder, model_type="llama", **overrides):
    """The config of a family as its folder would give it, parsed."""
    raw = {**SIZES, "model_type": model_type, **overrides}
    return read_config(write_config(folder, raw))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "names no model_type"),
        ('"llama"', "names no model_type"),
        ({"hidden_size": 64}, "names no model_type"),
        ({"model_type": 7}, "names no model_type"),
        ({"model_type": "own_thing"}, "model type 'own_thing' is not known"),
        ({"model_type": "llama", "num_attention_heads": "four"}, "not a valid llama configuration"),
        (
            {"model_type": "llama", "rope_parameters": {"rope_type": "yarn"}},
            "not a valid llama configuration",
        ),
    ],
)
def test_a_bad_config_is_refused_with_its_reason_in_one_line(tmp_path, content, reason):
    with pytest.raises(ModelRefused, match=reason) as refusal:
        read_config(write_config(tmp_path, content))
    assert "\n" not in str(refusal.value)


def test_a_config_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelRefused, match="cannot be read as JSON"):
        read_config(tmp_path)


def test_a_missing_config_is_refused_by_its_path(tmp_path):
    with pytest.raises(ModelRefused, match=r"config\.json cannot be read"):
        read_config(tmp_path)


def test_an_unknown_type_with_its_own_code_is_told_that_ondol_never_runs_it(tmp_path):
    content = {"model_type": "own_thing", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ModelRefused, match="brings its own code, which Ondol never runs"):
        read_config(write_config(tmp_path, content))


def test_own_code_beside_a_known_type_is_not_run(tmp_path):
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('remote code ran')")
    config = config_of(tmp_path, auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    assert type(config).__module__.startswith("transformers.models.llama")


@pytest.mark.parametrize(
    "key",
    [
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "_experts_implementation",
        "_experts_implementation_internal",
    ],
)
def test_keys_that_steer_transformers_do_not_reach_the_config(tmp_path, key):
    config = config_of(tmp_path, **{key: "someone/evil-kernel"})
    assert "someone/evil-kernel" not in map(str, vars(config).values())


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("quantization", [None, "int4", [], {"quant_method": "gptq", "bits": 4}])
def test_transformers_does_not_see_how_a_checkpoint_is_quantized(tmp_path, key, quantization):
    assert not hasattr(config_of(tmp_path, **{key: quantization}), key)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        (
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 8,
                    "long_factor": [2.0] * 8,
                    "original_max_position_embeddings": 64,
                }
            },
            "'longrope'",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial rotary",
        ),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen2_moe"])
def test_an_option_that_is_not_implemented_is_refused_by_name(tmp_path, model_type, options, reason):
    config = config_of(tmp_path, model_type, **options)
    with pytest.raises(ModelRefused, match=reason):
        describe(config)


def test_the_old_spelling_of_rope_scaling_is_understood(tmp_path):
    config = config_of(tmp_path, rope_theta=1e4, rope_scaling={"type": "dynamic", "factor": 2.0})
    with pytest.raises(ModelRefused, match="'dynamic'"):
        describe(config)


def test_a_type_outside_the_families_is_left_to_transformers(tmp_path):
    assert describe(config_of(tmp_path, "olmo2")) is None


def test_sizes_are_taken_over(tmp_path):
    arch = describe(config_of(tmp_path, num_key_value_heads=1, head_dim=24, attention_bias=True))
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim) == (4, 1, 24)
    assert (arch.qkv_bias, arch.output_bias, arch.mlp_bias) == (True, True, False)
    assert (arch.vocab_size, arch.hidden_size, arch.intermediate_size) == (512, 64, 96)
    assert len(arch.layers) == 3


def test_qwen2_has_biases_on_its_queries_keys_and_values_only(tmp_path):
    arch = describe(config_of(tmp_path, "qwen2"))
    assert (arch.qkv_bias, arch.output_bias, arch.mlp_bias) == (True, False, False)


@pytest.mark.parametrize(
    ("model_type", "options", "windows"),
    [
        ("llama", {}, [None, None, None]),
        ("mistral", {"sliding_window": 13}, [13, 13, 13]),
        ("mistral", {"sliding_window": None}, [None, None, None]),
        ("qwen2", {"sliding_window": 11}, [None, None, None]),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}, [None, 11, 11]),
        (
            "qwen2_moe",
            {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 2},
            [11, None, None],
        ),
    ],
)
def test_each_layer_has_its_own_sliding_window(tmp_path, model_type, options, windows):
    arch = describe(config_of(tmp_path, model_type, **options))
    assert [layer.sliding_window for layer in arch.layers] == windows


@pytest.mark.parametrize(
    ("options", "sparse"),
    [
        ({}, [True, True, True, True]),
        ({"decoder_sparse_step": 2}, [False, True, False, True]),
        ({"mlp_only_layers": [0, 2]}, [False, True, False, True]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, [False, False, False, True]),
        ({"num_experts": 0}, [False, False, False, False]),
    ],
)
def test_sparse_and_dense_layers_are_told_apart(tmp_path, options, sparse):
    config = config_of(tmp_path, "qwen2_moe", num_hidden_layers=4, **options)
    assert [layer.is_sparse for layer in describe(config).layers] == sparse


def test_a_padding_token_of_minus_one_loads_and_pretraining_tp_is_noted(tmp_path):
    assert FAMILIES["llama-2"][1] == {"num_key_value_heads": 4, "pretraining_tp": 2, "pad_token_id": -1}
    weights = load_model(save_checkpoint(tmp_path, "llama-2"), CPU, "float32")
    assert len(weights.notes) == 1
    assert "pretraining_tp=2" in weights.notes[0]
