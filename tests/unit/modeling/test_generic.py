"""Every refusal here is for a folder without a single weight: it must come from config.json alone."""

import json

import pytest
import torch
from support.checkpoints import FAMILIES, SIZES, reference_model, save_checkpoint
from support.forward import prompt_logits
from transformers import CONFIG_MAPPING

from ondol.errors import ModelRefused
from ondol.kernels.backend import deterministic_reference
from ondol.modeling.architecture import read_config
from ondol.modeling.generic import DryRun, build_generic
from ondol.modeling.layer_factory import PlainLayers
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 256,
}
MLA = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}


def config_only(folder, model_type, **options):
    """A folder with nothing but the config.json of a tiny model."""
    (folder / "config.json").write_text(json.dumps({**SIZES, **options, "model_type": model_type}))
    return folder


@pytest.mark.parametrize("family", ["qwen3", "phi3", "olmo2"])
def test_a_plain_causal_model_passes_on_its_config_alone(tmp_path, family):
    model_type, options = FAMILIES[family]
    model = build_generic(
        read_config(config_only(tmp_path, model_type, **options)), PlainLayers(torch.float32)
    )
    assert len(model.windows) == 3
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model_type", "options", "reason"),
    [
        ("bloom", {}, "bloom has no rotary position embedding"),
        ("gpt2", {}, "gpt2 has no rotary position embedding"),
        ("opt", {}, "opt has no rotary position embedding"),
        ("gptj", {}, "gptj has no rotary position embedding"),
        ("t5", {}, "t5 is an encoder-decoder model"),
        ("mamba", {}, "layers of a kind that Ondol does not implement: linear_attention"),
        ("qwen3_next", {}, "layers of a kind that Ondol does not implement: linear_attention"),
        ("falcon_h1", {}, "layers of a kind that Ondol does not implement: hybrid"),
        ("llama4_text", {}, "layers of a kind that Ondol does not implement: chunked_attention"),
        ("mixtral", {}, "mixtral is a mixture of experts"),
        ("qwen3_moe", {}, "qwen3_moe is a mixture of experts"),
        ("gpt_oss", {}, "gpt_oss is a mixture of experts"),
        ("deepseek_v3", MLA, "deepseek_v3 is a mixture of experts"),
        ("youtu", {}, "youtu: its keys and values differ in shape"),
        ("phi3", {"rope_parameters": LONGROPE}, "rope type 'longrope' is not supported"),
        ("qwen3", {"rope_parameters": {**LONGROPE, "rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("gemma3_text", {}, "rotary embeddings that differ between layers"),
        ("gemma", {}, "gemma computes a buffer that Ondol does not rebuild: .*embed_scale"),
        ("gemma2", {}, "gemma2 computes a buffer that Ondol does not rebuild: .*embed_scale"),
        ("diffllama", {}, "diffllama: its attention layers do not run in order"),
        ("stablelm", {}, "stablelm cannot be served"),
        ("nemotron", {}, "nemotron cannot be served"),
        ("falcon", {}, "falcon cannot be served"),
        ("bert", {}, "bert has no rotary position embedding"),
        ("qwen2_vl", {}, "qwen2_vl has no rotary position embedding"),
        ("csm", {}, "csm cannot be served: .*Unrecognized configuration class"),
    ],
)
def test_a_model_that_would_run_wrongly_is_refused_before_its_weights_are_read(
    tmp_path, model_type, options, reason
):
    assert model_type in CONFIG_MAPPING
    folder = config_only(tmp_path, model_type, **options)
    with pytest.raises(ModelRefused, match=reason) as refusal:
        load_model(folder, CPU, "float32")
    assert "\n" not in str(refusal.value)


class Layer(torch.nn.Module):
    """Stands for an attention layer of a transformers model."""

    def __init__(self, layer_idx=0, is_causal=True):
        super().__init__()
        self.layer_idx = layer_idx
        self.is_causal = is_causal


def refusal_of(module=None, value_dim=16, config=None, **keywords):
    run = DryRun(config or CONFIG_MAPPING["qwen3"](**SIZES))
    key, value = torch.empty(1, 2, 2, 16), torch.empty(1, 2, 2, value_dim)
    with pytest.raises(ModelRefused) as refusal:
        run.record(module or Layer(), key, value, keywords)
    return str(refusal.value)


@pytest.mark.parametrize(
    "keywords",
    [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}, {"is_causal": False}, {"dropout": 0.1}, {"new_thing": 1}],
)
def test_an_attention_call_with_something_unknown_is_refused_by_its_name(keywords):
    (name,) = keywords
    assert f"'{name}'" in refusal_of(**keywords)


def test_attention_that_looks_ahead_is_refused():
    assert "not causal" in refusal_of(Layer(is_causal=False))


def test_layers_out_of_order_are_refused():
    assert "do not run in order" in refusal_of(Layer(layer_idx=1))


def test_values_of_another_width_are_refused():
    assert "differ in shape" in refusal_of(value_dim=8)


def test_a_window_that_contradicts_the_config_is_refused():
    assert "sliding window is ambiguous" in refusal_of(sliding_window=64)


def test_a_window_that_no_layer_names_is_refused():
    config = CONFIG_MAPPING["phi3"](**SIZES, sliding_window=64)
    assert "does not say which layers slide" in refusal_of(config=config)


def test_windows_are_those_of_the_layers(tmp_path):
    options = {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    model = build_generic(read_config(config_only(tmp_path, "qwen3", **options)), PlainLayers(torch.float32))
    assert model.windows == (None, 11, 11)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("persimmon", {}), ("granite", {}), ("cohere2", {"sliding_window": 9}), ("glm4", {"head_dim": 16})],
)
def test_other_models_that_pass_compute_what_transformers_computes(
    tmp_path, monkeypatch, model_type, options
):
    monkeypatch.setitem(FAMILIES, model_type, (model_type, options))
    folder = save_checkpoint(tmp_path, model_type)
    prompts = [list(range(40, 69)), [7], list(range(90, 107))]
    ours = prompt_logits(load_model(folder, CPU, "float32"), prompts)
    reference = reference_model(folder)
    for prompt, logits in zip(prompts, ours, strict=True):
        with torch.no_grad():
            expected = reference(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_rotary_frequencies_stay_in_float32_when_the_model_is_in_bfloat16(tmp_path):
    weights = load_model(save_checkpoint(tmp_path, "qwen3"), CPU, "bfloat16")
    weights.model.prepare(64)
    assert weights.model.network.model.rotary_emb.inv_freq.dtype is torch.float32
    assert weights.model.network.model.norm.weight.dtype is torch.bfloat16


def test_a_tied_head_is_the_embedding(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen3", tie_word_embeddings=True)
    weights = load_model(folder, CPU, "float32")
    network = weights.model.network
    assert network.lm_head.weight is network.model.embed_tokens.weight
    (ours,) = prompt_logits(weights, [[5, 6, 7]])
    with torch.no_grad():
        expected = reference_model(folder)(torch.tensor([[5, 6, 7]])).logits[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_transformers_own_code_is_refused_where_rows_must_not_depend_on_each_other(tmp_path):
    model_type, options = FAMILIES["qwen3"]
    folder = config_only(tmp_path, model_type, **options)
    with pytest.raises(ModelRefused, match="qwen3 cannot be computed deterministically"):
        load_model(folder, CPU, "float32", kernels=deterministic_reference())
