"""The daemon serves a checkpoint that was published quantized, or says in one line why it does not."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.checkpoints import VOCAB_SIZE, reference_model, reference_tokens
from support.daemon import Daemon
from support.packers import GPTQ, pack_checkpoint
from support.tokenizers import save_byte_level_tokenizer

NUM_TOKENS = 40
EXPERT = "model.layers.1.mlp.experts.3.up_proj"


@pytest.fixture
def folders(tmp_path):
    """A served folder, GPTQ with mixed-up columns, and the same dequantized."""
    packed, dense = pack_checkpoint(tmp_path, "qwen2_moe", GPTQ(group_size=32, order="shared"))
    save_byte_level_tokenizer(packed, VOCAB_SIZE)
    return packed, dense


def change_config(folder: Path, **quantization):
    file = folder / "config.json"
    raw = json.loads(file.read_text())
    file.write_text(json.dumps(raw | {"quantization_config": raw["quantization_config"] | quantization}))


def refused(*arguments: str) -> str:
    """The one line with which `ondol serve` ends."""
    with Daemon(*arguments) as daemon:
        code, _ = daemon.end()
    assert code == 8
    assert not any("Traceback" in line for line in daemon.seen)
    assert daemon.seen[-1].startswith("ondol: error: ")
    return daemon.seen[-1]


def test_its_greedy_tokens_are_transformers_own_on_the_dequantized_weights(folders):
    packed, dense = folders
    prompt = [5, 77, 300, 41, 9]
    with Daemon(str(packed), "--dtype", "float32") as daemon:
        expected = reference_tokens(reference_model(dense), prompt, NUM_TOKENS)
        client = daemon.wait_until_serving().openai()
        answer = client.completions.create(
            model="packed",
            prompt=prompt,
            temperature=0,
            max_tokens=NUM_TOKENS,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
    assert answer.choices[0].token_ids == expected


def test_an_unsupported_option_is_named(folders):
    change_config(folders[0], bits=3)
    assert "gptq and bits=3" in refused(str(folders[0]))


def test_quantizing_it_again_is_refused(folders):
    assert "quantized already (gptq): --quantization nf4" in refused(str(folders[0]), "--quantization", "nf4")


def test_a_missing_expert_is_named(folders):
    file = folders[0] / "model.safetensors"
    tensors = load_file(file)
    del tensors[f"{EXPERT}.scales"]
    save_file(tensors, file)
    assert f"lacks the tensor {EXPERT}.scales" in refused(str(folders[0]))
