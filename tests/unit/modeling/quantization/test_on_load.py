import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.bitsandbytes_oracle import Oracle, save_dequantized
from support.checkpoints import VOCAB_SIZE, reference_model, reference_tokens, save_checkpoint
from support.engine import build_core, greedy, run_to_end
from support.forward import prompt_logits

from ondol.errors import ModelRefused
from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix
from ondol.modeling.layers import ExpertStack, Linear
from ondol.modeling.loading import load_model
from ondol.modeling.quantization import four_bit
from ondol.modeling.quantization import on_load as on_load_module
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear
from ondol.modeling.quantization.on_load import FourBitBlocks, Int8Rows, OnLoad
from ondol.modeling.quantization.parts import MatrixPart, PartSlot
from ondol.modeling.slots import BadTensor

CPU = torch.device("cpu")
METHODS = {
    "int8": OnLoad("int8"),
    "nf4": OnLoad("nf4"),
    "nf4-double": OnLoad("nf4", use_double_quant=True),
    "fp4": OnLoad("fp4"),
    "fp4-double": OnLoad("fp4", use_double_quant=True),
}
NUM_TOKENS = 48


def oracle_of(on_load):
    return Oracle(on_load.method, on_load.use_double_quant)


def part_slots(weights):
    return [slot for slot in weights.model.slots() if isinstance(slot, PartSlot)]


def scales_of(part):
    if part.matrix.nested is None:
        return part.scales()
    start = sum(part.matrix.part_rows[: part.index])
    rows = slice(start, start + part.matrix.part_rows[part.index])
    return part.matrix.nested.expand(part.expert)[rows]


def assert_equals_oracle(part, weight, oracle):
    codes, scales = oracle.codes_and_scales(weight)
    assert torch.equal(part.codes().flatten(), codes.flatten())
    assert torch.equal(scales_of(part).flatten(), scales)


@pytest.mark.parametrize("stored_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_each_tensor_is_quantized_as_bitsandbytes_quantizes_it_alone(tmp_path, family, method, stored_dtype):
    # K of the down projections is 96 and 32: their blocks of 64 run across rows.
    folder = save_checkpoint(tmp_path, family, stored_dtype=stored_dtype)
    tensors = load_file(folder / "model.safetensors")
    slots = part_slots(load_model(folder, CPU, "float32", on_load=METHODS[method]))
    assert len(slots) == sum(name.endswith("_proj.weight") for name in tensors)
    for slot in slots:
        weight = tensors[f"{slot.prefix}.weight"]
        assert weight.dtype is getattr(torch, stored_dtype)
        assert_equals_oracle(slot.part, weight, oracle_of(METHODS[method]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(100, 128), (70, 67), (3, 31)])
def test_pieces_change_nothing(monkeypatch, method, shape):
    monkeypatch.setattr(on_load_module, "PIECE_WEIGHTS", 640)
    monkeypatch.setattr(four_bit, "PIECE_WEIGHTS", 640)
    on_load = METHODS[method]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert_equals_oracle(filled(on_load, weight), weight, oracle_of(on_load))


def filled(on_load, weight):
    """A matrix by itself, filled from one tensor."""
    is_flat = on_load.method != "int8" and weight.shape[1] % 64 != 0
    source = (
        Int8Rows() if on_load.method == "int8" else FourBitBlocks(on_load.method, on_load.use_double_quant)
    )
    fmt = QuantizedFormat(
        on_load.method,
        None if on_load.method == "int8" else 64,
        has_nested_scales=on_load.use_double_quant,
    )
    part = MatrixPart(QuantizedMatrix(fmt, (weight.shape[0],), weight.shape[1], is_flat=is_flat), 0)
    source.fill("x", {"x.weight": weight}, part)
    return part


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_and_blocks_stay_zero(method, dtype):
    on_load = METHODS[method]
    weight = torch.randn((6, 128), generator=torch.Generator().manual_seed(2)).to(dtype)
    weight[1] = 0
    weight[3, 64:] = 0
    part = filled(on_load, weight)
    assert_equals_oracle(part, weight, oracle_of(on_load))
    values = part.matrix.dequantize(torch.float32)
    assert bool(values.isfinite().all())
    assert not values[1].any()
    assert not values[3, 64:].any()
    assert bool(values[0].any())


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_stays_zero(method):
    values = filled(METHODS[method], torch.zeros(4, 64)).matrix.dequantize(torch.float32)
    assert torch.equal(values, torch.zeros(4, 64))


def test_a_weight_beyond_float16_is_named_by_int8_and_taken_by_4_bits():
    weight = torch.ones(2, 64)
    weight[1, 3] = 1e6
    with pytest.raises(BadTensor, match=r"x\.weight .*beyond float16"):
        filled(OnLoad("int8"), weight)
    assert filled(OnLoad("nf4"), weight).matrix.dequantize(torch.float32)[1, 3] == 1e6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen2_moe", "qwen3"])
def test_greedy_text_is_what_transformers_generates_from_the_dequantized_weights(tmp_path, family, method):
    on_load = METHODS[method]
    folder = save_checkpoint(tmp_path / "source", family)
    reference = reference_model(save_dequantized(folder, tmp_path / "dequantized", oracle_of(on_load)))
    prompts = {"short": [5, 6, 7], "long": [random.Random(3).randrange(VOCAB_SIZE) for _ in range(29)]}
    core = build_core(folder, on_load=on_load)
    ours = run_to_end(core, {name: (ids, greedy(NUM_TOKENS)) for name, ids in prompts.items()})
    for name, ids in prompts.items():
        assert ours[name] == reference_tokens(reference, ids, NUM_TOKENS)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 8 * 2**-8), ("float16", 8 * 2**-11)]
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_logits_equal_a_float64_reference_within_the_error_of_the_dtype(
    tmp_path, family, method, dtype, tolerance
):
    on_load = METHODS[method]
    folder = save_checkpoint(tmp_path / "source", family, num_hidden_layers=1)
    reference = reference_model(save_dequantized(folder, tmp_path / "dequantized", oracle_of(on_load)))
    prompt = [random.Random(4).randrange(VOCAB_SIZE) for _ in range(23)]
    reference.set_experts_implementation("eager")  # the grouped product knows no float64
    with torch.no_grad():
        expected = reference.double()(torch.tensor([prompt])).logits[0]
    (ours,) = prompt_logits(load_model(folder, CPU, dtype, on_load=on_load), [prompt])
    error = (ours.double() - expected).norm() / expected.norm()
    assert error < tolerance


def test_skipped_modules_keep_their_weights_bit_for_bit(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    on_load = OnLoad("nf4", skip_modules=("k_proj", "model.layers.1"))
    weights = load_model(folder, CPU, "float32", on_load=on_load)
    tensors = load_file(folder / "model.safetensors")
    quantized = {slot.prefix for slot in part_slots(weights)}
    assert quantized == {
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith("_proj.weight") and "k_proj" not in name and "layers.1." not in name
    }
    plain = {name: module for module in plain_modules(weights) for name, *_ in module.shape.parts()}
    assert torch.equal(
        plain["model.layers.0.self_attn.k_proj"].weight, tensors["model.layers.0.self_attn.k_proj.weight"]
    )


def plain_modules(weights):
    return [module for _, module in weights.model.named_modules() if isinstance(module, Linear)]


def test_logits_with_skipped_modules_are_those_of_the_mixture(tmp_path):
    folder = save_checkpoint(tmp_path / "source", "qwen2_moe")
    on_load = OnLoad("nf4", skip_modules=("self_attn", "mlp.experts"))
    skipped = (".self_attn.", ".experts.")
    mixed = save_dequantized(folder, tmp_path / "mixed", Oracle("nf4"), skipped=skipped)
    weights = load_model(folder, CPU, "float32", on_load=on_load)
    assert any(isinstance(module, ExpertStack) for _, module in weights.model.named_modules())
    prompt = [9, 8, 7, 6]
    with torch.no_grad():
        expected = reference_model(mixed)(torch.tensor([prompt])).logits[0]
    torch.testing.assert_close(prompt_logits(weights, [prompt])[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("skipped", ["down_proj", "model.layers.2.mlp.experts.3"])
def test_skipping_a_part_of_a_layers_experts_is_refused(tmp_path, skipped):
    folder = save_checkpoint(tmp_path, "qwen2_moe")
    with pytest.raises(
        ModelRefused, match=r"llm_int8_skip_modules names model\.layers\.\d\.mlp\.experts\.\d"
    ):
        load_model(folder, CPU, "float32", on_load=OnLoad("nf4", skip_modules=(skipped,)))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_head_is_quantized_only_if_asked(tmp_path, family):
    folder = save_checkpoint(tmp_path, family)
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    for asked in (False, True):
        weights = load_model(folder, CPU, "float32", on_load=OnLoad("nf4", quantize_head=asked))
        heads = [slot for slot in part_slots(weights) if slot.prefix == "lm_head"]
        assert len(heads) == asked
        if asked:
            assert_equals_oracle(heads[0].part, head, Oracle("nf4"))


@pytest.mark.parametrize("family", ["llama-tied-biased", "qwen3"])
def test_a_tied_head_stays_and_the_load_says_so(tmp_path, family):
    folder = save_checkpoint(tmp_path, family, tie_word_embeddings=True)
    weights = load_model(folder, CPU, "float32", on_load=OnLoad("nf4", quantize_head=True))
    assert not any(slot.prefix == "lm_head" for slot in part_slots(weights))
    assert any("tied" in note for note in weights.notes)


def test_products_are_computed_in_the_compute_dtype(tmp_path, monkeypatch):
    folder = save_checkpoint(tmp_path, "qwen2_moe")
    prompt = [1, 2, 3, 4, 5]
    (exact,) = prompt_logits(load_model(folder, CPU, "float32", on_load=OnLoad("nf4")), [prompt])
    coarse = load_model(folder, CPU, "float32", on_load=OnLoad("nf4", compute_dtype=torch.bfloat16))
    kinds = {
        module.compute_dtype
        for _, module in coarse.model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedExperts)
    }
    assert kinds == {torch.bfloat16}
    (rounded,) = prompt_logits(coarse, [prompt])
    assert rounded.dtype is torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize("storage", ["int8", "float16", "bfloat16", "float32", "float64"])
def test_codes_may_be_packed_in_any_container_and_mean_the_same(tmp_path, storage):
    folder = save_checkpoint(tmp_path, "llama", intermediate_size=128)
    dtype = getattr(torch, storage)
    packed = load_model(folder, CPU, "float32", on_load=OnLoad("nf4", storage_dtype=dtype))
    usual = load_model(folder, CPU, "float32", on_load=OnLoad("nf4"))
    for ours, theirs in zip(part_slots(packed), part_slots(usual), strict=True):
        assert ours.part.matrix.packed.dtype is dtype
        assert torch.equal(ours.part.codes(), theirs.part.codes())
    assert packed.weights_bytes == usual.weights_bytes
    prompt = [3, 1, 4, 1, 5]
    assert torch.equal(prompt_logits(packed, [prompt])[0], prompt_logits(usual, [prompt])[0])


def test_codes_that_do_not_fill_the_container_are_refused(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", hidden_size=68, num_attention_heads=2, intermediate_size=33)
    with pytest.raises(ModelRefused, match=r"gate_proj: .* bnb_4bit_quant_storage"):
        load_model(folder, CPU, "float32", on_load=OnLoad("nf4", storage_dtype=torch.float64))


def test_a_bad_tensor_is_named_with_its_file(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for broken in (torch.full_like(tensors[name], torch.nan), tensors[name].T.contiguous()):
        save_file({**tensors, name: broken}, folder / "model.safetensors")
        with pytest.raises(ModelRefused, match=r"layers\.1\.mlp\.up_proj\.weight in .*model\.safetensors"):
            load_model(folder, CPU, "float32", on_load=OnLoad("nf4"))
