import json
import subprocess
import sys

import pytest
from support.checkpoints import save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

from ondol.cli.main import run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("quantize") / "tiny", "llama")
    save_byte_level_tokenizer(folder)
    return folder


@pytest.fixture
def quantize(source, tmp_path):
    def run_quantize(*arguments):
        output = ("--output", str(tmp_path / "target"), "--home", str(tmp_path / "home"))
        return run(["quantize", str(source), *output, *arguments])

    return run_quantize


def test_people_read_size_error_and_perplexity_in_both_languages(quantize, capsys, tmp_path):
    assert quantize("--method", "int8", "--device", "cpu") == 0
    first, *languages = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'target'}: 0.00 GB, ")
    assert first.endswith("21 modules quantized")
    assert [line.partition(":")[0] for line in languages] == ["english", "korean"]
    for line in languages:
        assert "relative logit error 0.0" in line
        assert "perplexity " in line
        assert "of 511" in line


def test_programs_read_one_json_object(quantize, capsys, tmp_path):
    assert quantize("--method", "int4", "--group-size", "row", "--json", "--device", "cpu") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["path"] == str(tmp_path / "target")
    assert (report["method"], report["num_quantized"]) == ("int4", 21)
    assert report["unquantized"] == ["lm_head"]
    assert "not GPTQ" in report["notes"][0]
    for figures in report["error"].values():
        assert 0 < figures["relative_logit_error"] < 1
        difference = figures["perplexity"] - figures["source_perplexity"]
        assert figures["perplexity_difference"] == pytest.approx(difference)
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    assert config["quantization_config"]["group_size"] == -1


def test_the_flags_reach_the_checkpoint(quantize, capsys, tmp_path):
    flags = ("--no-double-quant", "--quantize-lm-head", "--skip-modules", "q_proj,k_proj")
    assert quantize("--method", "nf4", "--no-measure", *flags, "--skip-modules", "model.layers.2") == 0
    captured = capsys.readouterr()
    assert "perplexity" not in captured.out
    assert "12 bytes" not in captured.out
    quantization = json.loads((tmp_path / "target" / "config.json").read_text())["quantization_config"]
    assert quantization["bnb_4bit_use_double_quant"] is False
    skipped = quantization["llm_int8_skip_modules"]
    assert "lm_head" not in skipped
    assert "model.layers.0.self_attn.q_proj" in skipped
    assert "model.layers.2.mlp.down_proj" in skipped
    assert len(skipped) == 2 * 2 + 7


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--method", "nf4", "--group-size", "64"), "--group-size is for int4"),
        (("--method", "int4", "--double-quant"), "--double-quant is for nf4"),
        (("--method", "int3"), "int3"),
        ((), "--method"),
    ],
)
def test_flags_that_mean_nothing_are_wrong_usage(arguments, reason, quantize, capsys, tmp_path):
    assert quantize(*arguments) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_an_output_in_use_is_refused_before_the_model_is_looked_for(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    arguments = ["quantize", "nosuch", "--method", "nf4", "--output", str(tmp_path), "--home", str(tmp_path)]
    assert run(arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_an_unknown_model_ends_with_exit_code_3(capsys, tmp_path):
    arguments = ["quantize", "nosuch", "--method", "nf4", "--output", str(tmp_path / "target")]
    assert run([*arguments, "--home", str(tmp_path / "home")]) == 3


def test_a_quantized_model_is_refused_with_one_line(quantize, capsys, tmp_path):
    assert quantize("--method", "int8", "--no-measure") == 0
    capsys.readouterr()
    arguments = ["quantize", str(tmp_path / "target"), "--method", "nf4", "--output", str(tmp_path / "again")]
    assert run([*arguments, "--home", str(tmp_path / "home")]) == 8
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert "quantized already" in captured.err
    assert not (tmp_path / "again").exists()


def test_listing_the_commands_does_not_import_torch():
    program = "import sys; from ondol.cli.main import run; run(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "quantize" in done.stdout
