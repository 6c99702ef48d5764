import io
import json

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from support import gguf_files
from support.checkpoints import LLAMA3_ROPE, reference_model, save_checkpoint

from ondol.model_manager.gguf.checkpoint import GGUFCheckpoint
from ondol.model_manager.gguf.conversion import write_model
from ondol.model_manager.progress import Progress

VOCAB_SIZE = len(gguf_files.vocabulary())
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
CASES = {
    "llama": ("llama", {}),
    "llama with tied head, biases and odd head size": ("llama-tied-biased", {}),
    "llama 3": ("llama-3-rope", {}),
    "llama 3 at its real scale": (
        "llama-3-rope",
        {
            "head_dim": 64,
            "rope_parameters": {**LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192},
        },
    ),
    "linear scaling": ("llama", {"rope_parameters": LINEAR}),
    "yarn scaling": ("llama", {"rope_parameters": YARN}),
    "qwen2": ("qwen2", {}),
    "qwen2 with tied head": ("qwen2", {"tie_word_embeddings": True}),
}


def convert(original, folder, quantization=GGMLQuantizationType.F32):
    folder.mkdir()
    path = gguf_files.checkpoint_to_gguf(original, folder.parent / "model.gguf", quantization=quantization)
    write_model(GGUFCheckpoint(path), folder, {}, Progress(io.StringIO()))
    return folder


@pytest.mark.parametrize(("family", "options"), CASES.values(), ids=CASES.keys())
def test_a_converted_checkpoint_computes_what_the_original_computes(tmp_path, family, options):
    original = save_checkpoint(tmp_path / "original", family, vocab_size=VOCAB_SIZE, **options)
    folder = convert(original, tmp_path / "converted")
    ids = torch.arange(3, 83)[None]
    with torch.no_grad():
        expected = reference_model(original)(ids).logits
        assert torch.equal(reference_model(folder)(ids).logits, expected)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "float16"), ("BF16", "bfloat16"), ("Q8_0", "float32")])
def test_half_precision_stays_half_precision_and_quantized_weights_become_float32(tmp_path, kind, dtype):
    original = save_checkpoint(tmp_path / "original", "llama", vocab_size=VOCAB_SIZE)
    folder = convert(original, tmp_path / "converted", GGMLQuantizationType[kind])
    weights = load_file(folder / "model.safetensors")
    assert {values.dtype for values in weights.values() if values.ndim > 1} == {getattr(torch, dtype)}
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
