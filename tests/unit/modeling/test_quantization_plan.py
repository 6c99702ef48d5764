import json

import bitsandbytes.nn
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import reference_model, reference_tokens, save_checkpoint
from support.greedy import greedy_tokens

from ondol.errors import ConfigError, ModelRefused
from ondol.modeling.fidelity import whole_prompt_logits
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization_plan import QuantizationPlan, SaveSettings

CPU = torch.device("cpu")
TOKEN_IDS = [(37 * index * index + 11) % 500 for index in range(40)]
NUM_TOKENS = 40
# Widths of whole blocks: bitsandbytes' dequantization on a CPU is wrong for others.
WHOLE_BLOCKS = {"intermediate_size": 128}


def logits_of(folder, on_load=None):
    return whole_prompt_logits(load_model(folder, CPU, "float32", on_load=on_load), TOKEN_IDS)


def quantize(source, target, method, **settings):
    target.mkdir()
    plan = QuantizationPlan(source, SaveSettings(method, **settings))
    plan.write(target)
    return plan


@pytest.mark.parametrize(
    ("family", "stored_dtype"),
    [
        ("llama", "bfloat16"),
        ("llama-tied-biased", "float32"),
        ("qwen2_moe", "bfloat16"),
        ("qwen3", "float32"),
    ],
)
@pytest.mark.parametrize(
    ("method", "use_double_quant"), [("nf4", False), ("nf4", True), ("int8", False)], ids=str
)
def test_a_saved_model_answers_bit_for_bit_as_one_quantized_on_load(
    family, method, use_double_quant, stored_dtype, tmp_path
):
    source = save_checkpoint(tmp_path / "source", family, stored_dtype=stored_dtype)
    quantize(source, tmp_path / "target", method, use_double_quant=use_double_quant)
    expected = logits_of(source, OnLoad(method, use_double_quant=use_double_quant))
    assert torch.equal(logits_of(tmp_path / "target"), expected)


def rounded_to_nearest(weight, group_size):
    """The nearest of sixteen steps that span each group, by plain rounding."""
    result = torch.empty_like(weight, dtype=torch.float64)
    for first in range(0, weight.shape[1], group_size):
        group = weight[:, first : first + group_size].double()
        scale = (group.abs().amax(dim=1, keepdim=True).float() * 2 / 15).half().double()
        result[:, first : first + group_size] = torch.clamp((group / scale).round(), -8, 7) * scale
    return result.float()


@pytest.mark.parametrize("family", ["qwen2", "qwen2_moe"])
@pytest.mark.parametrize("group_size", [32, 128])
def test_int4_answers_as_a_model_whose_weights_were_rounded_to_nearest(family, group_size, tmp_path):
    source = save_checkpoint(tmp_path / "source", family)
    plan = quantize(source, tmp_path / "target", "int4", group_size=group_size)
    tensors = load_file(source / "model.safetensors")
    names = [name for name in tensors if "_proj." in name and name.endswith(".weight")]
    assert len(names) == plan.num_quantized
    rounded = {name: rounded_to_nearest(tensors[name], group_size) for name in names}
    (tmp_path / "rounded").mkdir()
    save_file({**tensors, **rounded}, tmp_path / "rounded" / "model.safetensors", {"format": "pt"})
    (tmp_path / "rounded" / "config.json").write_text((source / "config.json").read_text())
    torch.testing.assert_close(
        logits_of(tmp_path / "target"), logits_of(tmp_path / "rounded"), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("quantize_head", [False, True])
@pytest.mark.parametrize("use_double_quant", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_transformers_reads_nf4_and_writes_the_same_text(family, use_double_quant, quantize_head, tmp_path):
    source = save_checkpoint(tmp_path / "source", family, **WHOLE_BLOCKS)
    target = tmp_path / "target"
    quantize(source, target, "nf4", use_double_quant=use_double_quant, quantize_head=quantize_head)
    reference = reference_model(target)
    four_bit = [module for module in reference.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(four_bit) == 3 * 7 + quantize_head
    for module in four_bit:
        module.support_avx512bf16_for_cpu = False  # its kernel for such processors rounds to bfloat16
    expected = reference_tokens(reference, TOKEN_IDS, NUM_TOKENS)
    assert greedy_tokens(load_model(target, CPU, "float32"), TOKEN_IDS, NUM_TOKENS) == expected


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased"])
def test_transformers_reads_int8_and_its_weights_write_the_same_text(family, tmp_path):
    source = save_checkpoint(tmp_path / "source", family)
    quantize(source, tmp_path / "target", "int8", skip_modules=("model.layers.1.mlp",))
    reference = reference_model(tmp_path / "target")
    num_int8 = sum(parameter.dtype == torch.int8 for parameter in reference.parameters())
    assert num_int8 == 3 * 7 - 3
    # As it is it would quantize activations too, which Ondol does not.
    reference = reference.dequantize(dtype=torch.float32)
    expected = reference_tokens(reference, TOKEN_IDS, NUM_TOKENS)
    assert greedy_tokens(load_model(tmp_path / "target", CPU, "float32"), TOKEN_IDS, NUM_TOKENS) == expected


def test_what_is_not_quantized_keeps_its_dtype_and_its_bits(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama", stored_dtype="bfloat16")
    plan = quantize(source, tmp_path / "target", "nf4", skip_modules=("o_proj", "model.layers.0"))
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "target" / "model.safetensors")
    kept = {name for name, tensor in after.items() if tensor.dtype == torch.bfloat16}
    assert kept == {
        name
        for name in before
        if not name.endswith("_proj.weight") or "o_proj" in name or "layers.0." in name
    }
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert plan.num_quantized == 2 * 6
    assert plan.num_weights == 2 * (64 * (64 + 32 + 32) + 3 * 64 * 96)
    assert set(plan.unquantized) == {name.removesuffix(".weight") for name in kept if "norm" not in name} - {
        "model.embed_tokens"
    }


def test_the_config_says_everything_that_the_source_said_and_how_it_is_quantized(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama", stored_dtype="bfloat16")
    quantize(source, tmp_path / "target", "int4", group_size=None)
    before, after = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("source", "target")
    )
    quantization = after.pop("quantization_config")
    assert after == before
    assert quantization["quant_method"] == "gptq"
    assert (quantization["bits"], quantization["group_size"], quantization["sym"]) == (4, -1, True)
    assert "round-to-nearest" in quantization["meta"]["method"]


def test_the_planned_size_is_the_written_size_and_shards_have_an_index(tmp_path):
    source = save_checkpoint(tmp_path / "source", "qwen2_moe", max_shard_size="100KB")
    (tmp_path / "target").mkdir()
    plan = QuantizationPlan(source, SaveSettings("nf4"), shard_bytes=50_000)
    seen = []
    plan.write(tmp_path / "target", lambda done, total: seen.append((done, total)))
    files = list((tmp_path / "target").glob("*.safetensors"))
    assert len(files) > 2
    tensors = [tensor for file in files for tensor in load_file(file).values()]
    assert sum(tensor.nbytes for tensor in tensors) == plan.size_bytes
    assert seen == sorted(seen)
    assert seen[-1] == (plan.source_bytes, plan.source_bytes)
    assert logits_of(tmp_path / "target").isfinite().all()


def test_a_model_that_is_quantized_already_is_refused(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama")
    quantize(source, tmp_path / "target", "int8")
    with pytest.raises(ModelRefused, match="quantized already"):
        QuantizationPlan(tmp_path / "target", SaveSettings("nf4"))


def test_a_tensor_that_is_not_finite_is_named_with_its_file(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    for method in ("nf4", "int8", "int4"):
        target = tmp_path / method
        target.mkdir()
        plan = QuantizationPlan(source, SaveSettings(method))
        with pytest.raises(
            ModelRefused, match=r"layers\.1\.mlp\.up_proj\.weight in .*model\.safetensors .*NaN"
        ):
            plan.write(target)


def test_a_missing_tensor_is_refused_before_anything_is_written(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.2.self_attn.q_proj.weight"]
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelRefused, match=r"lacks .*layers\.2\.self_attn\.q_proj\.weight"):
        QuantizationPlan(source, SaveSettings("nf4"))


def test_a_head_that_is_the_embedding_cannot_be_quantized(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama-tied-biased")
    with pytest.raises(ConfigError, match="--quantize-lm-head"):
        QuantizationPlan(source, SaveSettings("nf4", quantize_head=True))


def test_settings_that_leave_nothing_to_quantize_are_refused(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama")
    with pytest.raises(ConfigError, match="--skip-modules"):
        QuantizationPlan(source, SaveSettings("nf4", skip_modules=("model",)))


def test_a_shape_that_int4_cannot_pack_is_refused_by_name(tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama", intermediate_size=100)
    with pytest.raises(ModelRefused, match=r"gate_proj\.weight in .*model\.safetensors .*--skip-modules"):
        QuantizationPlan(source, SaveSettings("int4"))
