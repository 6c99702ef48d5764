"""Nothing but config.json lies in these folders: what is refused, is refused before any weight is read."""

import json
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import SIZES
from support.float_packers import BitsAndBytes4Bit, BlockFP8, Float8
from support.packers import AWQ, GPTQ, PackQuantized

from ondol.errors import ModelRefused
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.gptq import GPTQSettings
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization.selection import read_quantization

CPU = torch.device("cpu")


def write_config(folder, quantization, key="quantization_config"):
    raw = {**SIZES, "model_type": "llama", key: quantization}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def gptq(**options):
    return GPTQ(options=options).config


def awq(**options):
    return AWQ(options=options).config


def pack_quantized(**options):
    return PackQuantized(options=options).config


def with_weights(**changes):
    """compressed-tensors with other weights arguments."""
    config = PackQuantized().config
    config["config_groups"]["group_0"]["weights"] |= changes
    return config


UNKNOWN_METHODS = [
    *("aqlm", "auto-round", "bitnet", "eetq", "fbgemm_fp8", "fp_quant", "gguf", "higgs", "hqq", "marlin"),
    *("modelopt", "mxfp4", "quanto", "quark", "quip", "spqr", "squeezellm", "torchao", "vptq"),
]

REFUSED = [
    *(({"quant_method": method, "bits": 4}, f"quantized with {method}, which") for method in UNKNOWN_METHODS),
    ("int4", "is no object"),
    ([], "is no object"),
    ({}, "with an unknown method"),
    ({"quant_method": 7}, "with 7, which"),
    (gptq(bits=3), r"gptq and bits=3, which Ondol does not read: it reads 4, 8"),
    (gptq(bits="4"), "bits='4'"),
    (gptq(bits=True), "bits=True"),
    (gptq(group_size=0), "group_size=0"),
    (gptq(group_size=-7), "group_size=-7"),
    (gptq(group_size="128"), "group_size='128'"),
    (gptq(checkpoint_format="marlin"), "checkpoint_format='marlin'"),
    (gptq(format="bitblas"), "format='bitblas'"),
    (gptq(is_marlin_format=True), "is_marlin_format=True"),
    (gptq(pack_dtype="int16"), "pack_dtype='int16'"),
    (gptq(sym="yes"), "sym='yes'"),
    (gptq(dynamic={"+:.*down_proj": {"bits": 8}}), "dynamic="),
    (gptq(dynamic=[1]), "dynamic="),
    (awq(bits=8), "awq and bits=8"),
    (awq(version="gemv"), "version='gemv'"),
    (awq(version="gemv_fast"), "version='gemv_fast'"),
    (awq(version="marlin"), "version='marlin'"),
    (awq(backend="llm-awq"), "backend='llm-awq'"),
    (awq(zero_point="maybe"), "zero_point='maybe'"),
    (pack_quantized(format="marlin-24"), "format='marlin-24'"),
    (pack_quantized(format="nvfp4-pack-quantized"), "format='nvfp4-pack-quantized'"),
    (pack_quantized(sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config="),
    (pack_quantized(transform_config={"config_groups": {"R1": {}}}), "transform_config="),
    (pack_quantized(config_groups={}), "config_groups="),
    (pack_quantized(config_groups={"group_0": 4}), "group_0 is no object"),
    (pack_quantized(config_groups={"group_0": {"targets": "Linear", "weights": {}}}), "no valid targets"),
    (pack_quantized(config_groups={"group_0": {"targets": ["re:("], "weights": {}}}), "no valid targets"),
    (with_weights(num_bits=2), "num_bits=2"),
    (with_weights(type="float"), "type='float'"),
    (with_weights(strategy="tensor_group"), "strategy='tensor_group'"),
    (with_weights(strategy="tensor", group_size=None), "strategy='tensor'"),
    (with_weights(strategy="block", block_structure=[16, 32]), "strategy='block'"),
    (with_weights(strategy="group", group_size=None), "group_size=None"),
    ({**BlockFP8().config, "weight_block_size": [128]}, r"weight_block_size=\[128\]"),
    ({**BlockFP8().config, "weight_block_size": [128, 0]}, "weight_block_size="),
    ({**BlockFP8().config, "fmt": "e5m2"}, "fmt='e5m2'"),
    ({**BlockFP8().config, "scale_fmt": "ue8m0"}, "scale_fmt='ue8m0'"),
    ({**BlockFP8().config, "expert_dtype": "fp4"}, "expert_dtype='fp4'"),
    ({**BlockFP8().config, "modules_to_convert": ["embed_tokens"]}, "modules_to_convert="),
    ({"quant_method": "bitsandbytes"}, "load_in_4bit or load_in_8bit must be true"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": "yes"}, "load_in_4bit='yes'"),
]


@pytest.mark.parametrize(("quantization", "reason"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_not_supported_is_refused_by_name_in_one_line(tmp_path, quantization, reason):
    with pytest.raises(ModelRefused, match=reason) as refusal:
        load_model(write_config(tmp_path, quantization), CPU, "float32")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        (GPTQ().config, "gptq"),
        (AWQ().config, "awq"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128, "version": "GEMM"}, "awq"),
        (PackQuantized().config, "compressed-tensors"),
        (pack_quantized(sparsity_config={"format": "dense"}), "compressed-tensors"),
        (Float8().config, "compressed-tensors"),
        (BlockFP8().config, "fp8"),
        (BitsAndBytes4Bit().config, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes_4bit", "load_in_4bit": True}, "bitsandbytes"),
    ],
    ids=str,
)
def test_the_method_is_told_by_name(tmp_path, quantization, method):
    assert read_quantization(write_config(tmp_path, quantization)).method == method


@pytest.mark.parametrize("quant_method", ["compressed-tensors", None])
def test_compression_config_means_compressed_tensors(tmp_path, quant_method):
    config = {**PackQuantized().config, "quant_method": quant_method}
    folder = write_config(tmp_path, config, key="compression_config")
    assert read_quantization(folder).method == "compressed-tensors"


def test_a_full_precision_checkpoint_has_no_quantization(tmp_path):
    assert read_quantization(write_config(tmp_path, None)) is None


@pytest.mark.parametrize(
    ("bits", "group_size"), [(8, 128), (4, 128)], ids=["Qwen2-1.5B-GPTQ-Int8", "Qwen1.5-MoE-GPTQ-Int4"]
)
def test_published_qwen_checkpoints_are_read_as_they_describe_themselves(tmp_path, bits, group_size):
    config = {
        "batch_size": 1,
        "bits": bits,
        "block_name_to_quantize": None,
        "cache_block_outputs": True,
        "damp_percent": 0.01,
        "dataset": None,
        "desc_act": False,
        "exllama_config": {"version": 1},
        "group_size": group_size,
        "max_input_length": None,
        "model_seqlen": None,
        "module_name_preceding_first_block": None,
        "modules_in_block_to_quantize": None,
        "pad_token_id": None,
        "quant_method": "gptq",
        "static_groups": False,
        "sym": True,
        "tokenizer": None,
        "true_sequential": True,
        "use_cuda_fp16": False,
        "use_exllama": True,
    }
    quantization = read_quantization(write_config(tmp_path, config))
    assert quantization.settings == GPTQSettings(bits, group_size, is_symmetric=True, zero_offset=1)


@pytest.mark.parametrize(
    ("quantization", "note"),
    [
        (Float8().config, "quantization of activations is not applied"),
        (Float8(activations="static").config, "quantization of activations is not applied"),
        (BlockFP8(activations="static").config, "static quantization of activations is not applied"),
        (pack_quantized(kv_cache_scheme={"num_bits": 8}), "quantization of the KV cache is not applied"),
        ({"load_in_8bit": True}, "activations are not quantized"),
        (PackQuantized().config, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_left_out_is_noted(tmp_path, quantization, note):
    notes = read_quantization(write_config(tmp_path, quantization)).settings.notes
    assert len(notes) == (note is not None)
    assert note is None or re.search(note, notes[0])


@pytest.mark.parametrize("method", ["int8", "nf4", "fp4"])
def test_a_quantized_checkpoint_is_not_quantized_again(tmp_path, method):
    folder = write_config(tmp_path, GPTQ().config)
    with pytest.raises(ModelRefused, match=rf"quantized already \(gptq\): --quantization {method} cannot"):
        load_model(folder, CPU, "float32", on_load=OnLoad(method))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
usual = [GPTQ().config, AWQ().config, PackQuantized().config, Float8().config, BlockFP8().config]


def refusal_of(folder):
    """The message of a refusal; empty where there is none."""
    try:
        read_quantization(folder)
    except ModelRefused as refusal:
        return str(refusal)
    return ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(base=st.sampled_from([*usual, BitsAndBytes4Bit().config]), data=st.data())
def test_whatever_an_option_holds_it_is_read_or_refused(tmp_path, base, data):
    key = data.draw(st.sampled_from(sorted(base)))
    assert "\n" not in refusal_of(write_config(tmp_path, {**base, key: data.draw(anything)}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(base=st.sampled_from([PackQuantized().config, Float8().config]), data=st.data())
def test_whatever_a_config_group_holds_it_is_read_or_refused(tmp_path, base, data):
    group = base["config_groups"]["group_0"]
    key = data.draw(st.sampled_from(["targets", "weights", "input_activations", "format"]))
    changed = {**group, key: data.draw(anything)}
    if data.draw(st.booleans()):
        argument = data.draw(st.sampled_from(sorted(group["weights"])))
        changed = {**group, "weights": {**group["weights"], argument: data.draw(anything)}}
    folder = write_config(tmp_path, {**base, "config_groups": {"group_0": changed}})
    assert "\n" not in refusal_of(folder)
