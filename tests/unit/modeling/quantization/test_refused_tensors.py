"""Tensors of quantized checkpoints that do not fit: one line that names the tensor and its file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.float_packers import BitsAndBytes4Bit, BitsAndBytes8Bit, BlockFP8, Float8
from support.packers import AWQ, GPTQ, IntQuantized, PackQuantized, pack_checkpoint

from ondol.errors import ModelRefused
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")
MODULE = "model.layers.0.self_attn.o_proj"
EXPERT = "model.layers.0.mlp.experts.5.up_proj"

PACKERS = {
    "gptq": GPTQ(group_size=32),
    "gptq-desc_act": GPTQ(group_size=32, order="own"),
    "awq": AWQ(),
    "awq-symmetric": AWQ(zero_point=False),
    "pack": PackQuantized(symmetric=False, order="own"),
    "pack-plain-zeros": PackQuantized(symmetric=False, plain_zeros=True),
    "fp8": Float8(),
    "int8": IntQuantized(symmetric=False),
    "block-fp8": BlockFP8(),
    "bnb-4bit": BitsAndBytes4Bit(double=True),
    "bnb-8bit": BitsAndBytes8Bit(),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One small packed checkpoint of each format, made when first asked for."""
    made = {}

    def original(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = pack_checkpoint(folder, "qwen2_moe", PACKERS[name], num_hidden_layers=1)[0]
        return made[name]

    return original


@pytest.fixture
def refusal(originals, tmp_path):
    """The message with which a checkpoint is refused after `change` has been at its tensors."""

    def load(name, change):
        original = originals(name)
        tensors = load_file(original / "model.safetensors")
        change(tensors)
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "model.safetensors"
        )
        (tmp_path / "config.json").write_bytes((original / "config.json").read_bytes())
        with pytest.raises(ModelRefused) as refused:
            load_model(tmp_path, CPU, "float32")
        message = str(refused.value)
        assert "\n" not in message
        return message

    return load


def without(name):
    return lambda tensors: tensors.pop(name)


def replaced(name, make):
    def change(tensors):
        tensors[name] = make(tensors[name])

    return change


def with_first(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


def with_state(**changes):
    """A bitsandbytes quantization state with other values."""

    def change(tensor):
        state = json.loads(bytes(tensor.tolist())) | changes
        return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    return change


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("module", [MODULE, EXPERT])
def test_every_tensor_that_a_module_needs_is_missed_by_name(originals, refusal, name, module):
    optional = ("g_idx", "weight_format")  # without them: columns in order, and rows
    needed = [
        tensor
        for tensor in load_file(originals(name) / "model.safetensors")
        if tensor.startswith(module) and not tensor.endswith((*optional, ".bias"))
    ]
    assert needed
    if name == "awq-symmetric":
        needed.remove(f"{module}.qzeros")
    for tensor in needed:
        assert f"lacks the tensor {tensor}" in refusal(name, without(tensor))


@pytest.mark.parametrize("name", PACKERS)
def test_a_whole_missing_expert_is_named(originals, refusal, name):
    def change(tensors):
        for tensor in [key for key in tensors if key.startswith("model.layers.0.mlp.experts.5.")]:
            del tensors[tensor]

    assert "lacks the tensor model.layers.0.mlp.experts.5." in refusal(name, change)


@pytest.mark.parametrize("name", PACKERS)
def test_every_tensor_of_another_shape_is_named_with_its_file(originals, refusal, name):
    tensors = load_file(originals(name) / "model.safetensors")
    for tensor, value in tensors.items():
        if not tensor.startswith(MODULE) or tensor.endswith("weight_format"):
            continue
        message = refusal(name, replaced(tensor, lambda value: torch.cat([value, value])))
        assert message.startswith(f"{tensor} in "), (value.shape, message)
        assert "model.safetensors" in message


@pytest.mark.parametrize(
    ("name", "tensor", "make", "reason"),
    [
        ("gptq", "qweight", lambda codes: codes.long(), "holds torch.int64, not torch.int32"),
        ("gptq", "qweight", lambda codes: codes.float(), "holds torch.float32, not torch.int32"),
        ("gptq", "qzeros", with_first(0), "holds zero points other than 8"),
        ("gptq", "scales", with_first(float("nan")), "not finite"),
        ("gptq", "scales", lambda scales: scales.to(torch.int32), "holds I32, not floating-point scales"),
        ("gptq-desc_act", "g_idx", with_first(99), "names the group 99, but there are 2"),
        ("gptq-desc_act", "g_idx", with_first(-3), "names the group -3, but there are 2"),
        ("gptq-desc_act", "g_idx", torch.zeros_like, "does not share the columns out in groups of 32"),
        ("awq", "qweight", lambda codes: codes.short(), "holds torch.int16"),
        ("awq", "scales", with_first(float("inf")), "not finite"),
        ("awq-symmetric", "qzeros", with_first(0), "holds zero points other than 8"),
        ("pack", "weight_packed", lambda codes: codes.to(torch.uint8), "holds torch.uint8"),
        ("pack", "weight_shape", with_first(65), r"says \[65, 64\], the model needs \[64, 64\]"),
        ("pack", "weight_shape", lambda shape: shape.float(), "holds torch.float32"),
        ("pack", "weight_g_idx", with_first(2), "names the group 2, but there are 2"),
        ("pack-plain-zeros", "weight_zero_point", with_first(8), "no 4-bit integers"),
        ("fp8", "weight", with_first(float("nan")), "not finite"),
        ("fp8", "weight", lambda codes: codes.to(torch.float8_e5m2), "holds torch.float8_e5m2"),
        ("fp8", "weight_scale", with_first(float("nan")), "not finite"),
        ("int8", "weight", lambda codes: codes.short(), "holds torch.int16"),
        ("int8", "weight_zero_point", lambda zeros: zeros.short() + 300, "no 8-bit integers"),
        ("block-fp8", "weight_scale_inv", lambda scales: scales[:1, :1], "has shape"),
        ("bnb-4bit", "weight.quant_map", with_first(0.5), "is not the codebook of nf4"),
        ("bnb-4bit", "weight.nested_absmax", with_first(float("nan")), "not finite"),
        ("bnb-4bit", "weight.absmax", lambda scales: scales.float(), "holds torch.float32"),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_first(0), "is not the JSON"),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_state(blocksize="x"), "is not the JSON"),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_state(blocksize=1e999), "is not the JSON"),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_state(blocksize=0), "blocks of 0"),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_state(shape=None), "is not the JSON"),
        (
            "bnb-4bit",
            "weight.quant_state.bitsandbytes__nf4",
            with_state(shape=[1, 2]),
            r"says shape \[1, 2\]",
        ),
        ("bnb-4bit", "weight.quant_state.bitsandbytes__nf4", with_state(nested_blocksize=64), "256|64"),
        (
            "bnb-4bit",
            "weight.quant_state.bitsandbytes__nf4",
            with_state(quant_type="fp4"),
            "quant_type='fp4'",
        ),
        (
            "bnb-4bit",
            "weight.quant_state.bitsandbytes__nf4",
            with_state(nested_offset=float("inf")),
            "has the offset inf",
        ),
        ("bnb-8bit", "weight_format", lambda number: number + 2, "a layout other than rows"),
        ("bnb-8bit", "SCB", with_first(float("inf")), "not finite"),
    ],
)
def test_values_that_cannot_be_are_named_with_tensor_and_file(refusal, name, tensor, make, reason):
    message = refusal(name, replaced(f"{MODULE}.{tensor}", make))
    assert message.startswith(f"{MODULE}.{tensor} in "), message
    assert "model.safetensors" in message
    assert any(part in message for part in reason.replace("\\", "").split("|")), message


def test_a_bias_that_the_model_does_not_have_must_be_zero(refusal):
    name = f"{EXPERT}.bias"
    message = refusal("gptq", lambda tensors: tensors.update({name: torch.ones(32)}))
    assert message.startswith(f"{name} in ")
    assert "is a bias that this model does not have" in message


def test_experts_in_different_formats_are_refused(refusal):
    change = replaced(f"{EXPERT}.scales", lambda scales: scales.float())
    assert "are not all quantized in one format" in refusal("gptq", change)


def test_a_quantized_head_beside_a_tied_one_is_not_passed_over(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "llama", GPTQ(), plain=("embed_tokens", "norm"))
    raw = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**raw, "tie_word_embeddings": True}))
    with pytest.raises(ModelRefused, match=r"holds the tensor lm_head\.\w+ and 3 more"):
        load_model(packed, CPU, "float32")


def test_truncated_safetensors_are_refused_by_their_file(originals, tmp_path):
    content = (originals("gptq") / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "config.json").write_bytes((originals("gptq") / "config.json").read_bytes())
    with pytest.raises(ModelRefused, match=r"model\.safetensors is corrupt or truncated") as refused:
        load_model(tmp_path, CPU, "float32")
    assert "\n" not in str(refused.value)
