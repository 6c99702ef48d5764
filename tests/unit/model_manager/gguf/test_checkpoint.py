import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file
from support import gguf_files
from transformers import AutoConfig, AutoModelForCausalLM

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint, shortest_decimal, unpermute_rotary
from ondol.model_manager.progress import Progress
from ondol.model_manager.wheel_model import write_model


def llama_cpp_permutation(weights, num_heads):
    rows, columns = weights.shape
    return (
        weights.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def converted(tmp_path, weights, **options):
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(gguf_files.write_gguf(tmp_path / "tiny.gguf", weights, **options), folder, {}, Progress())
    return folder


def test_unpermuting_undoes_the_order_that_llama_cpp_gives_to_rotated_rows():
    weights = np.arange(64 * 8, dtype=np.float32).reshape(64, 8)
    assert np.array_equal(unpermute_rotary(llama_cpp_permutation(weights, 4), 4), weights)


def test_a_converted_checkpoint_computes_what_the_original_model_computes(tmp_path):
    folder = converted(tmp_path, gguf_files.random_weights(tied=False))
    torch.manual_seed(1)
    original = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder), dtype=torch.float32
    ).eval()
    state = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    weights = {
        checkpoint_tensor.name: name
        for name, checkpoint_tensor in zip(
            gguf_files.random_weights(tied=False),
            GGUFCheckpoint(tmp_path / "tiny.gguf").tensors(),
            strict=True,
        )
    }
    permuted = {}
    for hugging_face_name, gguf_name in weights.items():
        values = state[hugging_face_name]
        heads = {"attn_q": gguf_files.NUM_HEADS, "attn_k": gguf_files.NUM_KV_HEADS}
        kind = gguf_name.split(".")[-2]
        permuted[gguf_name] = llama_cpp_permutation(values, heads[kind]) if kind in heads else values
    second = tmp_path / "second"
    second.mkdir()
    loaded = AutoModelForCausalLM.from_pretrained(converted(second, permuted), dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, original(ids).logits)


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_weights_are_dequantized_without_any_further_rounding(tmp_path, quantization):
    kind = GGMLQuantizationType[quantization]
    weights = gguf_files.random_weights()
    written = load_file(converted(tmp_path, weights, quantization=kind) / "model.safetensors")

    def expected(name):
        return dequantize(quantize(weights[name], kind), kind)

    assert {values.dtype for values in written.values()} == {np.dtype(np.float32)}
    assert len(written) == len(weights)
    embedding = written["model.embed_tokens.weight"]
    down = written["model.layers.1.mlp.down_proj.weight"]
    key = written["model.layers.1.self_attn.k_proj.weight"]
    assert np.array_equal(embedding, expected("token_embd.weight"))
    assert np.array_equal(down, expected("blk.1.ffn_down.weight"))
    assert np.array_equal(
        llama_cpp_permutation(key, gguf_files.NUM_KV_HEADS), expected("blk.1.attn_k.weight")
    )
    assert np.array_equal(written["model.norm.weight"], weights["output_norm.weight"])


def test_config_states_the_shapes_and_the_rotary_base_of_the_file(tmp_path):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights())
    config = GGUFCheckpoint(path).config()
    assert config["rope_theta"] == 100_000.0
    assert config["rms_norm_eps"] == 1e-5
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert config["vocab_size"] == len(gguf_files.vocabulary())


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_exactly_when_the_file_has_no_output_matrix(tmp_path, tied):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights(tied=tied))
    assert GGUFCheckpoint(path).config()["tie_word_embeddings"] is tied


def test_a_float32_metadata_value_is_read_as_the_decimal_that_was_meant():
    assert shortest_decimal(9.999999747378752e-06) == 1e-05


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"architecture": "gemma"}, "gemma"), ({"rope_scaling": 4.0}, "rope.scaling")],
)
def test_what_would_be_converted_wrongly_is_refused_by_name(tmp_path, options, reason):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights(), **options)
    with pytest.raises(ModelRefused, match=reason):
        GGUFCheckpoint(path)


def test_an_unknown_tensor_is_refused_by_name(tmp_path):
    weights = gguf_files.random_weights() | {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", weights)
    with pytest.raises(ModelRefused, match="rope_freqs"):
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
