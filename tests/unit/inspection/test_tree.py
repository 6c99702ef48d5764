import pytest
import torch
from support.checkpoints import save_checkpoint
from support.packers import AWQ, pack_checkpoint

from ondol.inspection.facts import read_facts
from ondol.inspection.live_tree import live_tree
from ondol.inspection.outline import open_outline
from ondol.inspection.published_tree import published_tree
from ondol.inspection.tree import TreeNode, fold, stored, tree_lines
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")


def leaf(name, dtype="float16"):
    return TreeNode(name, "Linear", 4, 8, (stored("weight", dtype, (8, 4), 2),))


def tree_of(folder, tmp_path):
    with open_outline(str(folder), tmp_path / "home") as outline:
        return published_tree(outline, read_facts(outline))


def text_of(tree):
    return "\n".join(tree_lines(tree, lambda size_bytes: f"{size_bytes} B"))


def find(node, name):
    if node.name == name:
        return node
    return next((found for child in node.children if (found := find(child, name))), None)


def test_equal_numbered_neighbours_become_one():
    (first, second) = fold([leaf("0"), leaf("1"), leaf("2", "float32")])
    assert (first.name, first.count) == ("0-1", 2)
    assert (second.name, second.count) == ("2", 1)


def test_equal_modules_with_names_stay_apart():
    assert [node.name for node in fold([leaf("k_proj"), leaf("v_proj")])] == ["k_proj", "v_proj"]


def test_bytes_count_repeated_modules_as_often_as_they_repeat():
    tree = TreeNode("", "Model", children=fold([leaf("0"), leaf("1")]))
    assert tree.num_bytes == 2 * 64
    assert tree.to_json()["children"][0]["count"] == 2


def test_a_model_looks_as_transformers_prints_it(tmp_path):
    folder = save_checkpoint(tmp_path / "tiny", "llama", stored_dtype="bfloat16")
    lines = text_of(tree_of(folder, tmp_path)).splitlines()
    assert lines[0].startswith("LlamaForCausalLM  ")
    assert "      (0-2): 3 x LlamaDecoderLayer  61696 B" in lines
    assert "          (q_proj): Linear  64 -> 64, bfloat16, 16 bits, 8192 B" in lines
    assert "        (self_attn): LlamaAttention  24576 B, 4 heads, 2 kv heads of 16" in lines
    assert "    (rotary_emb): LlamaRotaryEmbedding  theta 10000" in lines
    assert "    (norm): LlamaRMSNorm  bfloat16, 128 B, eps 1e-06" in lines


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased", "qwen2_moe", "mistral", "qwen3", "phi3"])
def test_every_tensor_of_the_checkpoint_is_in_the_tree_once(tmp_path, family):
    folder = save_checkpoint(tmp_path / "tiny", family)
    checkpoint = Checkpoint(folder)
    total = sum(checkpoint.tensor(name).nbytes for name in checkpoint.names)
    assert tree_of(folder, tmp_path).num_bytes == total
    config_alone = tmp_path / "config"
    config_alone.mkdir()
    (config_alone / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert tree_of(config_alone, tmp_path).num_bytes == total


def test_a_tied_head_has_no_weights_of_its_own(tmp_path):
    head = find(tree_of(save_checkpoint(tmp_path / "tiny", "llama-tied-biased"), tmp_path), "lm_head")
    assert head.tensors == ()
    assert "tied" in head.remarks[0]


def test_awq_modules_show_their_packed_tensors(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "llama", AWQ())
    down = find(tree_of(packed, tmp_path), "down_proj")
    assert down.class_name == "WQLinear_GEMM"
    assert {tensor.name for tensor in down.tensors} == {"qweight", "qzeros", "scales"}
    assert f"qweight int32 [{down.num_in}, {down.num_out // 8}]" in text_of(down)


@pytest.mark.parametrize(
    ("on_load", "expected"),
    [
        (OnLoad("nf4"), "bitsandbytes: Params4bit uint8 [2048, 1], [1024, 1], [1024, 1]"),
        (OnLoad("int8"), "bitsandbytes: Int8Params int8 [64, 64], [32, 64], [32, 64]"),
    ],
)
def test_what_is_loaded_stands_beside_what_bitsandbytes_would_hold(tmp_path, on_load, expected):
    loaded = load_model(save_checkpoint(tmp_path / "tiny", "llama"), CPU, "float32", on_load=on_load)
    tree = live_tree(loaded)
    assert tree.class_name == "Decoder"
    assert tree.num_bytes == loaded.weights_bytes
    qkv = find(tree, "qkv")
    assert qkv.class_name == "QuantizedLinear"
    assert qkv.remarks == ("q_proj + k_proj + v_proj", expected)
    (codes,) = [tensor for tensor in qkv.tensors if tensor.name == "packed"]
    assert (codes.dtype, codes.shape) == (
        ("uint8", (128, 32)) if on_load.method == "nf4" else ("int8", (128, 64))
    )


def test_bitsandbytes_itself_holds_what_is_shown(tmp_path):
    from bitsandbytes.nn import Int8Params, Params4bit

    weight = torch.randn(64, 64)
    four_bit = Params4bit(weight, requires_grad=False, quant_type="nf4").to("cpu")
    eight_bit = Int8Params(weight, requires_grad=False).to("cpu")
    assert (four_bit.dtype, list(four_bit.shape)) == (torch.uint8, [2048, 1])
    assert (eight_bit.CB.dtype, list(eight_bit.CB.shape)) == (torch.int8, [64, 64])


@pytest.mark.parametrize("on_load", [None, OnLoad("nf4"), OnLoad("int8")])
def test_experts_in_memory_are_stacks(tmp_path, on_load):
    folder = save_checkpoint(tmp_path / "tiny", "qwen2_moe", hidden_size=64, moe_intermediate_size=64)
    loaded = load_model(folder, CPU, "float32", on_load=on_load)
    tree = live_tree(loaded)
    assert tree.num_bytes == loaded.weights_bytes
    experts = find(tree, "experts")
    assert experts.remarks == ("8 experts",)
    assert ("for each of 8 experts" in text_of(experts)) is (on_load is not None)
