import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import save_checkpoint
from support.forward import prompt_logits

from ondol.errors import ModelRefused
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")
NORM = "model.layers.1.input_layernorm.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def rewrite(original, tmp_path):
    """Copies the checkpoint with some tensors changed; None takes one away."""

    def write(**changes):
        tensors = load_file(original / "model.safetensors")
        tensors |= changes.pop("tensors", {})
        save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((original / "config.json").read_bytes())
        return tmp_path

    return write


def with_value(value):
    tensor = torch.ones(64)
    tensor[63] = value
    return tensor


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({NORM: None}, f"lacks the tensor {NORM}$"),
        ({NORM: None, QUERY: None}, f"lacks the tensor {QUERY} and 1 more tensors"),
        (
            {"model.extra.weight": torch.ones(1)},
            r"\(model\.safetensors\) holds the tensor model\.extra\.weight",
        ),
        (
            {NORM: torch.ones(65)},
            f"{NORM} in .*model.safetensors has shape \\[65\\], the model needs \\[64\\]",
        ),
        ({QUERY: torch.ones(32, 64)}, f"{QUERY} in .* has shape \\[32, 64\\], the model needs \\[64, 64\\]"),
        ({QUERY: torch.ones(4096)}, f"{QUERY} in .* has shape \\[4096\\]"),
        ({NORM: with_value(float("nan"))}, f"{NORM} in .*model.safetensors holds values that are not finite"),
        ({NORM: with_value(float("inf"))}, f"{NORM} in .*model.safetensors holds values that are not finite"),
        (
            {NORM: with_value(float("-inf"))},
            f"{NORM} in .*model.safetensors holds values that are not finite",
        ),
        ({NORM: torch.ones(64, dtype=torch.int32)}, f"{NORM} in .*model.safetensors holds torch.int32"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_file(rewrite, tensors, reason):
    folder = rewrite(tensors=tensors)
    with pytest.raises(ModelRefused, match=reason):
        load_model(folder, CPU, "float32")


def test_rotary_frequencies_of_old_checkpoints_are_passed_over(rewrite):
    folder = rewrite(tensors={"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert load_model(folder, CPU, "float32").num_layers == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_of_another_float_type_are_converted(rewrite, dtype):
    weights = load_model(rewrite(tensors={NORM: torch.full((64,), 1.5).to(dtype)}), CPU, "float32")
    assert weights.model.layers[1].input_norm.weight.dtype is torch.float32
    assert torch.all(weights.model.layers[1].input_norm.weight == 1.5)


def test_fused_projections_hold_each_tensor_in_its_place(original):
    tensors = load_file(original / "model.safetensors")
    attention = load_model(original, CPU, "float32").model.layers[0].attention
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    torch.testing.assert_close(attention.qkv.weight.data, torch.cat([tensors[name] for name in names]))


def test_a_head_that_is_tied_and_yet_in_the_file_is_not_used(tmp_path):
    folder = save_checkpoint(tmp_path, "llama-tied-biased")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    assert "lm_head.weight" not in tensors
    prompts = [[5, 6, 7]]
    expected = prompt_logits(load_model(folder, CPU, "float32"), prompts)
    save_file({**tensors, "lm_head.weight": torch.zeros(512, 64)}, file)
    torch.testing.assert_close(prompt_logits(load_model(folder, CPU, "float32"), prompts), expected)


def test_a_head_in_a_file_of_a_model_that_is_not_tied_is_needed(rewrite):
    with pytest.raises(ModelRefused, match=r"lacks the tensor lm_head\.weight"):
        load_model(rewrite(tensors={"lm_head.weight": None}), CPU, "float32")


@pytest.mark.parametrize("max_shard_size", ["1GB", "100KB"])
def test_progress_never_goes_back_and_reaches_the_total(tmp_path, max_shard_size):
    seen = []
    folder = save_checkpoint(tmp_path, "llama", max_shard_size=max_shard_size)
    load_model(folder, CPU, "float32", on_progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[0] < totals[0]
    assert set(totals) == {done[-1]}


def test_shards_load_to_the_same_model_as_one_file(tmp_path, original):
    sharded = save_checkpoint(tmp_path, "llama", max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    prompts = [[5, 6, 7], [8]]
    torch.testing.assert_close(
        prompt_logits(load_model(sharded, CPU, "float32"), prompts),
        prompt_logits(load_model(original, CPU, "float32"), prompts),
    )
