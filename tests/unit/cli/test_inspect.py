import json

import pytest
from support.checkpoints import save_checkpoint
from support.header_files import published_folder

from ondol.cli.main import run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("inspect") / "tiny", "llama")


@pytest.fixture
def inspect(tiny, tmp_path):
    return lambda *arguments: run(["inspect", str(tiny), "--home", str(tmp_path / "home"), *arguments])


def test_people_read_facts_and_the_tree(inspect, capsys):
    assert inspect() == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "tiny: LlamaForCausalLM"
    assert "Context: 512 tokens, rope theta 10000" in lines
    assert "KV cache: 768 B per token in float32" in lines
    assert "      (0-2): 3 x LlamaDecoderLayer  120 KiB" in lines
    assert captured.err == ""


def test_a_mixture_of_experts_tells_total_and_active_parameters(tmp_path, capsys):
    folder = published_folder(tmp_path / "moe", "qwen1.5-moe-a2.7b")
    assert run(["inspect", str(folder), "--home", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "Parameters: 14,315,784,192, 2,689,173,504 active for each token" in output
    assert "Experts: 60 routed of width 1408, 4 for each token; one shared of width 5632" in output
    assert "(0-23): 24 x Qwen2MoeDecoderLayer" in output
    assert max(map(len, output.splitlines())) <= 110


def test_what_is_loaded_is_quantized_as_asked(inspect, capsys):
    assert inspect("--loaded", "--quantization", "nf4", "--bnb-4bit-use-double-quant", "--device", "cpu") == 0
    output = capsys.readouterr().out
    assert "(down): QuantizedLinear" in output
    assert "bitsandbytes: Params4bit uint8 [3072, 1]" in output
    assert "nested.codes uint8" in output


def test_programs_read_facts_and_tree(inspect, capsys):
    assert inspect("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["facts"]["num_layers"] == 3
    assert report["facts"]["kv_bytes_per_token"] == 768
    assert report["is_loaded"] is False
    assert report["tree"]["class"] == "LlamaForCausalLM"
    assert report["tree"]["children"][0]["name"] == "model"


def test_a_config_alone_cannot_be_loaded(tmp_path, capsys):
    folder = published_folder(tmp_path / "llama", "llama-2-7b-chat-hf")
    assert run(["inspect", str(folder), "--loaded", "--home", str(tmp_path)]) == 8
    assert "ondol pull" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    assert run(["inspect", "--help"]) == 0
    assert "ondol inspect starter --loaded" in capsys.readouterr().out
