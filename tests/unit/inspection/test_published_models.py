"""The numbers of published models, from their config.json (and GPTQ's headers) alone.

Parameters are those that the models' pages and papers state.
"""

import time

import pytest
import torch

from ondol.inspection.facts import read_facts
from ondol.inspection.fit import Question, measure_fit
from ondol.inspection.forms import draw_published
from ondol.inspection.machine import described_machine
from ondol.inspection.published_tree import published_tree
from ondol.modeling.loading import draw_model
from ondol.modeling.report import report_weights

GIB = 2**30
CPU = torch.device("cpu")

# name -> parameters, KV bytes per token in 16 bits, context length
PUBLISHED = {
    "llama-2-7b-chat-hf": (6_738_415_616, 512 * 1024, 4096),
    "llama-2-13b-chat-hf": (13_015_864_320, 800 * 1024, 4096),
    "llama-2-70b-chat-hf": (68_976_648_192, 320 * 1024, 4096),
    "llama-3-8b-instruct": (8_030_261_248, 128 * 1024, 8192),
    "qwen2-1.5b-instruct": (1_543_714_304, 28 * 1024, 32768),
    "qwen2-1.5b-instruct-gptq-int8": (1_543_714_304, 28 * 1024, 32768),
    "qwen2-7b-instruct": (7_615_616_512, 56 * 1024, 32768),
    "qwen1.5-7b-chat": (7_721_324_544, 512 * 1024, 32768),
    "qwen1.5-moe-a2.7b": (14_315_784_192, 192 * 1024, 8192),
    "qwen1.5-moe-a2.7b-chat": (14_315_784_192, 192 * 1024, 32768),
    "qwen1.5-moe-a2.7b-chat-gptq-int4": (14_315_784_192, 192 * 1024, 32768),
    "mistral-7b-v0.1": (7_241_732_096, 128 * 1024, 32768),
}
SPARSE = ("qwen1.5-moe-a2.7b", "qwen1.5-moe-a2.7b-chat", "qwen1.5-moe-a2.7b-chat-gptq-int4")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_cache_and_context_are_the_published_ones(published, name):
    facts = read_facts(published(name))
    num_parameters, kv_bytes, context_length = PUBLISHED[name]
    assert facts.num_parameters == num_parameters
    assert facts.kv_bytes_per_token(torch.float16) == kv_bytes
    assert facts.context_length == context_length
    assert (facts.num_active_parameters == num_parameters) is (name not in SPARSE)


def test_the_mixture_of_experts_activates_2_7_of_14_3_billion(published):
    facts = read_facts(published("qwen1.5-moe-a2.7b"))
    assert f"{facts.num_parameters / 1e9:.1f}" == "14.3"
    assert f"{facts.num_active_parameters / 1e9:.1f}" == "2.7"
    assert facts.experts is not None
    # The 64 experts of its announcement: 60 routed, and 4 that are one shared of fourfold width.
    assert facts.experts.num_experts == 60
    assert facts.experts.shared_intermediate_size == 4 * facts.experts.intermediate_size


def test_drawing_the_largest_model_is_quick(published):
    folder = published("llama-2-70b-chat-hf").folder
    started = time.process_time()
    draw_model(folder, CPU, "float16")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("name", "form", "gib"),
    [
        ("llama-2-7b-chat-hf", "fp32", 25.10),
        ("llama-2-7b-chat-hf", "fp16", 12.55),
        ("llama-2-70b-chat-hf", "fp16", 128.48),
        ("qwen1.5-moe-a2.7b", "fp16", 26.67),
        # 4.5 bits for what is quantized, 16 for embeddings, head and router.
        ("qwen1.5-moe-a2.7b", "nf4", 8.33),
    ],
)
def test_weights_take_what_their_bits_say(published, name, form, gib):
    report = measure_fit(published(name), described_machine(24 * GIB, "cuda"), Question(context=1024))
    (fit,) = [fit for fit in report.forms if fit.form == form]
    assert fit.weights_bytes / GIB == pytest.approx(gib, abs=0.01)


@pytest.mark.parametrize(
    ("name", "bits", "gigabytes"),
    [
        # Published sizes of the weights files: 8.41 GB in three shards, of which g_idx and zero biases,
        # which are not kept, are 0.05; zeros are symmetric and not kept either.
        ("qwen1.5-moe-a2.7b-chat-gptq-int4", 4.125, 8.31),
        ("qwen2-1.5b-instruct-gptq-int8", 8.125, 1.80),
    ],
)
def test_gptq_models_are_measured_as_published(published, name, bits, gigabytes):
    blueprint = draw_published(published(name), "float16").blueprint
    quantized = report_weights(blueprint.model).stored[0]
    assert quantized.bits_per_weight == pytest.approx(bits, abs=1e-3)
    total_bytes = sum(parameter.nbytes for parameter in blueprint.model.parameters())
    assert total_bytes / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_a_gptq_module_shows_what_it_really_stores(published):
    outline = published("qwen2-1.5b-instruct-gptq-int8")
    tree = published_tree(outline, read_facts(outline))
    assert tree.class_name == "Qwen2ForCausalLM"
    (layers,) = [node for node in tree.children[0].children if node.name == "layers"]
    (layer,) = layers.children
    assert (layer.name, layer.count, layer.class_name) == ("0-27", 28, "Qwen2DecoderLayer")
    (gate,) = [node for node in layer.children[1].children if node.name == "gate_proj"]
    assert (gate.class_name, gate.num_in, gate.num_out) == ("QuantLinear", 1536, 8960)
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in gate.tensors} == {
        "qweight": ("int32", (1536 * 8 // 32, 8960)),
        "qzeros": ("int32", (1536 // 128, 8960 * 8 // 32)),
        "scales": ("float16", (1536 // 128, 8960)),
        "g_idx": ("int32", (1536,)),
        "bias": ("float16", (8960,)),
    }
    # 8 of codes, 16/128 of scales, 8/128 of zeros, and g_idx.
    assert gate.bits_per_weight == pytest.approx(8 + 24 / 128 + 32 / 8960)


def test_experts_are_folded_with_their_projections(published):
    outline = published("qwen1.5-moe-a2.7b-chat-gptq-int4")
    tree = published_tree(outline, read_facts(outline))
    (layers,) = [node for node in tree.children[0].children if node.name == "layers"]
    (block,) = [node for node in layers.children[0].children if node.name == "mlp"]
    (experts,) = [node for node in block.children if node.name == "experts"]
    routed = experts.children[0]
    assert (routed.name, routed.count) == ("0-59", 60)
    assert [(part.name, part.class_name) for part in routed.children] == [
        ("gate_proj", "QuantLinear"),
        ("up_proj", "QuantLinear"),
        ("down_proj", "QuantLinear"),
    ]
    # Every tensor of the file, once.
    checkpoint = outline.checkpoint()
    with (outline.folder / "model.safetensors").open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    assert tree.num_bytes == checkpoint.size_bytes - 8 - header_bytes
    # The three files on the Hub; their headers are a few megabytes.
    assert checkpoint.size_bytes == pytest.approx(4_000_527_016 + 3_791_651_312 + 622_329_984, rel=1e-3)
