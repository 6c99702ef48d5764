import random

import pytest
import torch
from support.checkpoints import VOCAB_SIZE, reference_tokens
from support.engine import build_core, greedy, run_to_end
from support.float_packers import BitsAndBytes4Bit, BitsAndBytes8Bit, BlockFP8, Float8
from support.forward import prompt_logits
from support.packers import AWQ, GPTQ, NOT_PACKED, IntQuantized, PackQuantized, pack_checkpoint
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from ondol.modeling.layers import ExpertStack, Linear
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.layers import QuantizedLinear, SplitProjection

CPU = torch.device("cpu")
NUM_TOKENS = 40
ALL = ("embed_tokens", "norm")
# GPTQ and AWQ pack along N: a gate of one output does not fill a word, and nobody quantizes it.
ALL_BUT_GATE = (*ALL, "shared_expert_gate")

FORMATS = {
    "gptq-4bit": GPTQ(),
    "gptq-4bit-32": GPTQ(group_size=32),
    "gptq-4bit-64-asym": GPTQ(group_size=64, sym=False),
    "gptq-4bit-row-asym": GPTQ(group_size=-1, sym=False),
    "gptq-4bit-row-desc_act": GPTQ(group_size=-1, order="own"),
    "gptq-4bit-v2": GPTQ(group_size=32, version=2),
    "gptq-4bit-v2-asym": GPTQ(group_size=32, version=2, sym=False),
    "gptq-4bit-desc_act": GPTQ(group_size=32, order="shared"),
    "gptq-4bit-desc_act-own-asym": GPTQ(group_size=32, order="own", sym=False),
    "gptq-4bit-no-g_idx": GPTQ(group_size=32, has_g_idx=False),
    "gptq-4bit-float32-scales": GPTQ(group_size=32, scale_dtype=torch.float32),
    "gptq-4bit-zero-biases": GPTQ(group_size=32, zero_biases=True),
    "gptq-8bit": GPTQ(bits=8),
    "gptq-8bit-32-asym": GPTQ(bits=8, group_size=32, sym=False),
    "gptq-8bit-v2-asym-desc_act": GPTQ(bits=8, group_size=32, sym=False, version=2, order="shared"),
    "awq": AWQ(),
    "awq-row": AWQ(group_size=-1),
    "awq-symmetric": AWQ(zero_point=False, has_zeros=False),
    "awq-symmetric-with-zeros": AWQ(zero_point=False),
    "pack-4bit": PackQuantized(),
    "pack-4bit-asym": PackQuantized(symmetric=False),
    "pack-4bit-asym-plain-zeros": PackQuantized(symmetric=False, plain_zeros=True),
    "pack-4bit-channel": PackQuantized(strategy="channel", group_size=None),
    "pack-4bit-actorder": PackQuantized(order="shared"),
    "pack-4bit-actorder-own-asym": PackQuantized(order="own", symmetric=False),
    "pack-8bit": PackQuantized(bits=8),
    "pack-8bit-channel-asym": PackQuantized(bits=8, strategy="channel", group_size=-1, symmetric=False),
    "fp8-channel": Float8(),
    "fp8-tensor-static": Float8(strategy="tensor", activations="static"),
    "fp8-naive-block": Float8(strategy="block", format="naive-quantized"),
    "int8-channel": IntQuantized(),
    "int8-channel-asym": IntQuantized(symmetric=False),
    "block-fp8": BlockFP8(),
    "tensor-fp8-static": BlockFP8(block=None, activations="static"),
    "bnb-nf4": BitsAndBytes4Bit(),
    "bnb-nf4-double": BitsAndBytes4Bit(double=True),
    "bnb-fp4-double-bfloat16-storage": BitsAndBytes4Bit("fp4", double=True, storage=torch.bfloat16),
    "bnb-nf4-blocks-of-128": BitsAndBytes4Bit(block_size=128),
    "bnb-fp4-blocks-of-32": BitsAndBytes4Bit("fp4", block_size=32),
    "bnb-8bit": BitsAndBytes8Bit(),
    "bnb-8bit-without-format": BitsAndBytes8Bit(has_format=False),
}

# Of each format one on dense models; all on a model that has dense layers and sparse ones.
ON_DENSE_MODELS = (
    "gptq-4bit-64-asym",
    "gptq-4bit-desc_act",
    "gptq-4bit-zero-biases",
    "gptq-8bit",
    "awq",
    "pack-4bit-asym",
    "pack-4bit-actorder-own-asym",
    "fp8-channel",
    "int8-channel",
    "block-fp8",
    "bnb-nf4-double",
    "bnb-nf4-blocks-of-128",
    "bnb-8bit",
)
CASES = [
    *((name, "qwen2_moe", NOT_PACKED) for name in FORMATS),
    *((name, "qwen2", NOT_PACKED) for name in ON_DENSE_MODELS),
    *((name, "llama", NOT_PACKED) for name in ("gptq-8bit", "awq", "pack-4bit", "bnb-nf4-double")),
    *((name, "qwen2_moe", ALL_BUT_GATE) for name in ("gptq-4bit-desc_act", "awq")),
    *((name, "qwen2_moe", ALL) for name in ("pack-4bit-asym", "fp8-channel", "bnb-nf4", "bnb-8bit")),
    *((name, "qwen3", NOT_PACKED) for name in ("gptq-4bit-desc_act", "block-fp8")),
    ("gptq-4bit", "qwen3", ALL),
    ("gptq-4bit-desc_act-own-asym", "llama-tied-biased", NOT_PACKED),
    ("awq", "qwen2", (*NOT_PACKED, "v_proj", "layers.1.mlp.up_proj")),
]
# The first of two layers is dense.
MIXED = {"mlp_only_layers": [0], "num_hidden_layers": 2}


def case_id(value):
    plain = {NOT_PACKED: "usual", ALL: "all", ALL_BUT_GATE: "routers"}
    return plain.get(value, "some") if isinstance(value, tuple) else value


def some_prompt():
    generator = random.Random(3)
    return [generator.randrange(VOCAB_SIZE) for _ in range(12)]


def float64_model(folder):
    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    ).eval()


def reference_text(dense):
    """Prompt and greedy continuation by transformers over the dequantized weights, and their logits."""
    model = float64_model(dense)
    text = some_prompt() + reference_tokens(model, some_prompt(), NUM_TOKENS)
    with torch.no_grad():
        return text, model(torch.tensor([text])).logits[0].float()


@pytest.mark.parametrize(("name", "family", "plain"), CASES, ids=case_id)
def test_logits_and_greedy_text_equal_transformers_on_the_dequantized_weights(tmp_path, name, family, plain):
    options = MIXED if family == "qwen2_moe" else {}
    packed, dense = pack_checkpoint(tmp_path, family, FORMATS[name], plain=plain, **options)
    text, expected = reference_text(dense)
    (ours,) = prompt_logits(load_model(packed, CPU, "float32"), [text])
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()
    # Each next token is the most likely one after the true text so far: by induction, greedy decoding.
    first = len(some_prompt())
    assert ours[first - 1 : -1].argmax(dim=-1).tolist() == text[first:]


class TwoGroups:
    """compressed-tensors with 8 bits for what a pattern names, 4 for all other linear modules."""

    four, eight = PackQuantized(symmetric=False), PackQuantized(bits=8, group_size=64)

    @property
    def config(self):
        (linear,) = self.four.config["config_groups"].values()
        (named,) = self.eight.config["config_groups"].values()
        groups = {"group_0": linear, "group_1": {**named, "targets": ["re:.*down_proj$"]}}
        return {**self.four.config, "config_groups": groups}

    def pack(self, prefix, weight):
        return (self.eight if prefix.endswith("down_proj") else self.four).pack(prefix, weight)


def test_each_module_has_the_scheme_of_the_config_group_that_names_it(tmp_path):
    packed, dense = pack_checkpoint(tmp_path, "qwen2_moe", TwoGroups(), **MIXED)
    text, expected = reference_text(dense)
    weights = load_model(packed, CPU, "float32")
    (ours,) = prompt_logits(weights, [text])
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()
    assert [stack.fmt.bits for stack in experts_of(weights).stacks()] == [4, 8]


@pytest.mark.parametrize("name", ["gptq-4bit-desc_act", "bnb-nf4-double"])
def test_requests_decoded_together_by_the_engine_get_the_reference_text(tmp_path, name):
    packed, dense = pack_checkpoint(tmp_path, "qwen2_moe", FORMATS[name], **MIXED)
    model = float64_model(dense)
    prompts = {"long": some_prompt(), "short": some_prompt()[:3], "one": [7]}
    requests = {key: (prompt, greedy(NUM_TOKENS)) for key, prompt in prompts.items()}
    expected = {key: reference_tokens(model, prompt, NUM_TOKENS) for key, prompt in prompts.items()}
    assert run_to_end(build_core(packed), requests) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gptq-4bit-64-asym", "awq", "pack-8bit", "fp8-channel", "bnb-nf4-double"])
def test_half_precision_stays_near_the_float64_reference(tmp_path, name, dtype):
    packed, dense = pack_checkpoint(tmp_path, "qwen2", FORMATS[name])
    text, expected = reference_text(dense)
    (ours,) = prompt_logits(load_model(packed, CPU, dtype), [text])
    assert torch.cosine_similarity(ours, expected, dim=-1).min() > 0.98


def test_experts_in_half_precision_stay_near_the_float64_reference(tmp_path):
    packed, dense = pack_checkpoint(tmp_path, "qwen2_moe", FORMATS["gptq-4bit-32"], **MIXED)
    text, expected = reference_text(dense)
    (ours,) = prompt_logits(load_model(packed, CPU, "bfloat16"), [text])
    # Rounding may send a row to another expert, so that single rows differ.
    assert torch.cosine_similarity(ours, expected, dim=-1).median() > 0.995


def attention_of(weights):
    return weights.model.layers[0].attention


def experts_of(weights):
    return weights.model.layers[1].feed_forward.experts


@pytest.mark.parametrize(
    ("order", "is_fused", "is_sorted"), [(None, True, False), ("shared", True, True), ("own", False, True)]
)
def test_projections_are_fused_exactly_where_their_columns_are_in_the_same_order(
    tmp_path, order, is_fused, is_sorted
):
    packer = GPTQ(group_size=32, order=order)
    weights = load_model(pack_checkpoint(tmp_path, "qwen2_moe", packer, **MIXED)[0], CPU, "float32")
    assert isinstance(attention_of(weights).qkv, QuantizedLinear if is_fused else SplitProjection)
    assert (attention_of(weights).output.matrix.column_order is not None) is is_sorted
    stacks = experts_of(weights).stacks()
    assert len(stacks) == (2 if is_fused else 3)
    assert (stacks[0].column_order is not None) is is_sorted


def test_modules_without_quantized_tensors_are_plain(tmp_path):
    plain = (*NOT_PACKED, "v_proj", "experts")
    weights = load_model(
        pack_checkpoint(tmp_path, "qwen2_moe", AWQ(), plain=plain, **MIXED)[0], CPU, "float32"
    )
    kinds = [type(part) for part in attention_of(weights).qkv.projections]
    assert kinds == [QuantizedLinear, QuantizedLinear, Linear]
    assert isinstance(experts_of(weights), ExpertStack)
    assert isinstance(weights.model.head, Linear)


def test_weights_take_the_room_that_their_bits_need(tmp_path):
    packed, _ = pack_checkpoint(
        tmp_path, "qwen2", GPTQ(group_size=32), hidden_size=128, intermediate_size=256
    )
    matrix = load_model(packed, CPU, "float32").model.layers[0].feed_forward.gate_up.matrix
    assert matrix.num_bytes * 8 / matrix.num_weights == 4 + 16 / 32
