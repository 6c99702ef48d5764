import io

import gguf.quants
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from support import gguf_files

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import (
    GGUFCheckpoint,
    can_unpack,
    shortest_decimal,
    unpermute_rotary,
)
from ondol.model_manager.gguf.config import generation_config, model_config
from ondol.model_manager.gguf.conversion import write_model
from ondol.model_manager.progress import Progress

KEPT = ("F16", "BF16")


def converted(tmp_path, weights, **options):
    folder = tmp_path / "model"
    folder.mkdir()
    checkpoint = GGUFCheckpoint(gguf_files.write_gguf(tmp_path / "tiny.gguf", weights, **options))
    write_model(checkpoint, folder, {}, Progress(io.StringIO()))
    return folder


@pytest.mark.parametrize("shape", [(64, 8), (64,)])
def test_unpermuting_undoes_the_order_that_llama_cpp_gives_to_rotated_rows(shape):
    weights = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert np.array_equal(unpermute_rotary(gguf_files.rotary_order(weights, 4), 4), weights)


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_weights_are_unpacked_without_any_further_rounding(tmp_path, quantization):
    kind = GGMLQuantizationType[quantization]
    weights = gguf_files.random_weights()
    written = load_file(converted(tmp_path, weights, quantization=kind) / "model.safetensors")

    def expected(name):
        return dequantize(quantize(weights[name], kind), kind)

    assert len(written) == len(weights)
    embedding = written["model.embed_tokens.weight"]
    down = written["model.layers.1.mlp.down_proj.weight"]
    key = written["model.layers.1.self_attn.k_proj.weight"]
    assert str(down.dtype).removeprefix("torch.") == (
        {"F16": "float16", "BF16": "bfloat16"}.get(quantization, "float32")
    )
    assert np.array_equal(embedding.float().numpy(), expected("token_embd.weight"))
    assert np.array_equal(down.float().numpy(), expected("blk.1.ffn_down.weight"))
    assert np.array_equal(
        gguf_files.rotary_order(key.float().numpy(), gguf_files.NUM_KV_HEADS), expected("blk.1.attn_k.weight")
    )
    assert np.array_equal(written["model.norm.weight"].numpy(), weights["output_norm.weight"])


def test_large_matrices_are_unpacked_in_pieces_of_whole_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("ondol.model_manager.gguf.checkpoint.CHUNK_WEIGHTS", 3 * gguf_files.HIDDEN_SIZE)
    weights = gguf_files.random_weights()
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", weights, GGMLQuantizationType.Q8_0)
    embedding = next(tensor for tensor in GGUFCheckpoint(path).tensors() if "embed" in tensor.name)
    chunks = list(embedding.chunks())
    assert len(chunks) == -(-embedding.shape[0] // 3)
    kind = GGMLQuantizationType.Q8_0
    assert np.array_equal(
        np.concatenate(chunks), dequantize(quantize(weights["token_embd.weight"], kind), kind)
    )


UNPACKED = {*gguf.quants._type_traits, GGMLQuantizationType.F32, GGMLQuantizationType.F16}


@pytest.mark.parametrize("kind", sorted(UNPACKED, key=lambda kind: kind.name), ids=lambda kind: kind.name)
def test_every_type_that_the_gguf_package_unpacks_is_read(tmp_path, kind):
    block_size, type_bytes = GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 64, (4, 256 // block_size * type_bytes), dtype=np.uint8)
    writer = GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_head_count(1)
    writer.add_tensor("blk.0.ffn_down.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = GGUFCheckpoint(tmp_path / "one.gguf").tensors()
    assert tensor.shape == (4, 256)
    assert tensor.dtype == (kind.name if kind.name in KEPT else "F32")
    values = np.concatenate(list(tensor.chunks()))
    expected = dequantize(blocks, kind)
    if kind.name == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(values.astype(np.float32), expected, equal_nan=True)


def test_a_type_that_the_gguf_package_cannot_unpack_is_told_apart():
    assert not can_unpack(GGMLQuantizationType.Q8_K)
    assert can_unpack(GGMLQuantizationType.Q4_K)


def test_config_states_the_shapes_and_the_rotary_base_of_the_file(tmp_path):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights())
    config = model_config(GGUFCheckpoint(path))
    assert config["rope_theta"] == 100_000.0
    assert config["rms_norm_eps"] == 1e-5
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert config["vocab_size"] == len(gguf_files.vocabulary())


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_exactly_when_the_file_has_no_output_matrix(tmp_path, tied):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights(tied=tied))
    assert model_config(GGUFCheckpoint(path))["tie_word_embeddings"] is tied


def test_a_float32_metadata_value_is_read_as_the_decimal_that_was_meant():
    assert shortest_decimal(9.999999747378752e-06) == 1e-05


def edited(tmp_path, edit, weights=None):
    """A file whose metadata got one more entry."""

    def tokenizer(writer):
        gguf_files.plain_tokenizer(writer)
        edit(writer)

    return gguf_files.write_gguf(
        tmp_path / "tiny.gguf", weights or gguf_files.random_weights(), tokenizer=tokenizer
    )


def test_an_unknown_architecture_is_refused_with_those_that_are_known(tmp_path):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights(), architecture="gemma")
    with pytest.raises(ModelRefused, match=r"'gemma'; known are llama and qwen2"):
        GGUFCheckpoint(path)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda writer: writer.add_expert_count(8), r"llama\.expert_count"),
        (lambda writer: writer.add_uint16("split.count", 3), "one part of several"),
    ],
)
def test_metadata_that_changes_the_model_is_refused_by_name(tmp_path, edit, reason):
    with pytest.raises(ModelRefused, match=reason):
        GGUFCheckpoint(edited(tmp_path, edit))


def test_an_unknown_key_without_a_value_changes_nothing(tmp_path):
    GGUFCheckpoint(edited(tmp_path, lambda writer: writer.add_expert_count(0)))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda writer: writer.add_rope_scaling_factor(4.0), r"rope\.scaling of an unknown type"),
        (lambda writer: writer.add_value_length(8), r"attention\.value_length"),
    ],
)
def test_what_no_config_can_say_is_refused_by_name(tmp_path, edit, reason):
    checkpoint = GGUFCheckpoint(edited(tmp_path, edit))
    with pytest.raises(ModelRefused, match=reason):
        model_config(checkpoint)


def test_heads_that_differ_between_layers_are_refused(tmp_path):
    writer = GGUFWriter(tmp_path / "uneven.gguf", "llama")
    writer.add_head_count([4, 2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelRefused, match=r"attention\.head_count for each layer"):
        list(GGUFCheckpoint(tmp_path / "uneven.gguf").tensors())


def test_factors_that_are_not_llama_3s_are_refused(tmp_path):
    factors = np.linspace(1.0, 3.0, gguf_files.HEAD_DIM // 2, dtype=np.float32)
    weights = gguf_files.random_weights() | {"rope_freqs.weight": factors}
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", weights)
    with pytest.raises(ModelRefused, match="rope_freqs"):
        model_config(GGUFCheckpoint(path))


def test_biases_that_a_config_cannot_state_are_refused(tmp_path):
    weights = gguf_files.random_weights() | {"blk.0.attn_q.bias": np.ones(64, dtype=np.float32)}
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", weights)
    with pytest.raises(ModelRefused, match="a bias for attn_q alone"):
        model_config(GGUFCheckpoint(path))


def test_every_token_that_ends_an_answer_is_kept(tmp_path):
    def edit(writer):
        writer.add_eot_token_id(0)

    assert generation_config(GGUFCheckpoint(edited(tmp_path, edit)))["eos_token_id"] == [2, 0]


def test_an_unknown_tensor_is_refused_by_name(tmp_path):
    weights = gguf_files.random_weights() | {"blk.0.attn_sinks.weight": np.ones(8, dtype=np.float32)}
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", weights)
    with pytest.raises(ModelRefused, match="attn_sinks"):
        list(GGUFCheckpoint(path).tensors())


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>not a model</html>" * 10])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match="broken"):
        GGUFCheckpoint(path)


def test_a_truncated_file_is_refused(tmp_path):
    whole = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights()).read_bytes()
    path = tmp_path / "truncated.gguf"
    for share in (0.02, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelRefused, match="truncated"):
            GGUFCheckpoint(path)
