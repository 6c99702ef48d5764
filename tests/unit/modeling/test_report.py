import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import save_checkpoint

from ondol.modeling.loading import draw_model, load_model
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.report import compress_names, report_weights

CPU = torch.device("cpu")


def stored(report):
    return {entry.kind: entry for entry in report.stored}


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased", "qwen2_moe-mixed", "qwen3", "olmo2"])
@pytest.mark.parametrize("method", [None, "int8", "nf4"])
def test_the_bytes_of_all_entries_are_the_bytes_of_the_model(tmp_path, family, method):
    folder = save_checkpoint(tmp_path, family)
    on_load = None if method is None else OnLoad(method, use_double_quant=True)
    weights = load_model(folder, CPU, "bfloat16", on_load=on_load)
    report = weights.report
    assert sum(entry.num_bytes for entry in report.stored) == weights.weights_bytes
    tensors = load_file(folder / "model.safetensors")
    assert sum(entry.num_weights for entry in report.stored) == sum(t.numel() for t in tensors.values())
    modules = {name.rpartition(".")[0] for name in tensors if name.endswith(".weight")}
    assert sum(entry.num_modules for entry in report.stored) == len(modules)
    assert set(stored(report)) == {"bfloat16"} | ({method} if method else set())


def test_a_report_needs_no_weights(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2_moe")
    loaded = load_model(folder, CPU, "float32", on_load=OnLoad("nf4"))
    assert report_weights(draw_model(folder, CPU, "float32", OnLoad("nf4")).model) == loaded.report


@pytest.mark.parametrize(
    ("on_load", "bits"),
    [
        (OnLoad("nf4"), 4.5),
        (OnLoad("fp4"), 4.5),
        # 4 + 8/64 for the codes of the scales + 32/(64 * 256) for theirs, and 32 for each tensor's offset.
        (OnLoad("nf4", use_double_quant=True), 4.127),
        (OnLoad("int8"), 8 + 32 / 2048),
    ],
)
def test_bits_per_weight_are_measured(tmp_path, on_load, bits):
    sizes = {"hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 1, "head_dim": 512}
    folder = save_checkpoint(tmp_path, "llama", **sizes, num_key_value_heads=4)
    report = report_weights(draw_model(folder, CPU, "bfloat16", on_load).model)
    entry = stored(report)[on_load.method]
    assert entry.bits_per_weight == pytest.approx(bits, abs=5e-5)
    assert entry.num_modules == 7
    assert stored(report)["bfloat16"].bits_per_weight == 16


def test_what_stayed_unquantized_is_named_without_indices(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2_moe")
    report = report_weights(draw_model(folder, CPU, "float32", OnLoad("nf4")).model)
    assert sorted(report.unquantized) == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.*.input_layernorm",
        "model.layers.*.mlp.gate",
        "model.layers.*.mlp.shared_expert_gate",
        "model.layers.*.post_attention_layernorm",
        "model.norm",
    ]


def test_names_of_the_generic_path_are_those_of_the_checkpoint(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen3")
    report = report_weights(draw_model(folder, CPU, "float32", OnLoad("nf4")).model)
    assert "model.layers.*.self_attn.q_norm" in report.unquantized
    assert "model.embed_tokens" in report.unquantized
    assert not any(name.endswith("_proj") for name in report.unquantized)


def test_skipped_experts_appear_once(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2_moe")
    on_load = OnLoad("nf4", skip_modules=("mlp.experts",))
    report = report_weights(draw_model(folder, CPU, "float32", on_load).model)
    assert "model.layers.*.mlp.experts.*.gate_proj" in report.unquantized


def test_the_container_is_that_of_the_packed_tensor(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", intermediate_size=128)
    on_load = OnLoad("nf4", storage_dtype=torch.bfloat16)
    entry = stored(report_weights(draw_model(folder, CPU, "float32", on_load).model))["nf4"]
    assert entry.container == "bfloat16"
    assert entry.bits_per_weight == 4.5


def test_only_indices_become_stars():
    names = dict.fromkeys(["model.layers.0.mlp2.w1", "model.layers.11.mlp2.w1", "blocks.3"])
    assert compress_names(names) == ("model.layers.*.mlp2.w1", "blocks.*")
