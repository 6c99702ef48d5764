import json

import pytest
from support.checkpoints import save_checkpoint
from support.header_files import published_folder

from ondol.cli.main import run
from ondol.inspection.machine import Machine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("fit") / "tiny", "llama")


@pytest.fixture
def fit(tiny, tmp_path):
    return lambda *arguments: run(["fit", str(tiny), "--home", str(tmp_path / "home"), *arguments])


def test_people_read_a_table_of_forms_and_a_verdict(fit, capsys):
    assert fit("--device", "cpu", "--context", "128", "--concurrency", "2") == 0
    captured = capsys.readouterr()
    title, memory, _, header, *rows, _, verdict = captured.out.splitlines()
    assert title == "tiny: 0.00B parameters; 2 x 128 tokens of context"
    assert "of RAM" in memory
    assert header.split()[:2] == ["FORM", "WEIGHTS"]
    assert [row.split()[0] for row in rows] == ["FP32", "BF16", "INT8", "NF4", "NF4", "published"]
    assert verdict.startswith("It fits as FP32: up to 512 tokens for 2 at once")
    assert max(map(len, captured.out.splitlines())) <= 110
    assert captured.err == ""


def test_where_nothing_fits_the_table_is_printed_and_the_exit_code_says_so(fit, capsys):
    assert fit("--memory", "100KiB") == 5
    captured = capsys.readouterr()
    assert "It does not fit in any form." in captured.out
    assert captured.err.startswith("ondol: error: tiny does not fit: its smallest form needs ")


def test_programs_read_one_json_object_also_where_nothing_fits(fit, capsys):
    assert fit("--memory", "100KiB", "--json") == 5
    report = json.loads(capsys.readouterr().out)
    assert (report["fits"], report["best_form"]) == (False, None)
    assert report["device"]["kind"] == "cuda"
    assert report["device"]["total_bytes"] == 100 * 1024


def test_a_published_model_on_a_card_of_24_gigabytes(tmp_path, capsys):
    folder = published_folder(tmp_path / "moe", "qwen1.5-moe-a2.7b")
    assert run(["fit", str(folder), "--memory", "24GiB", "--home", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "14.32B parameters, 2.69B active per token" in output
    assert "a graphics card, 24.0 GiB, of which 21.6 GiB can be used" in output
    assert "It fits as INT8" in output
    assert max(map(len, output.splitlines())) <= 110


def test_who_asks_for_too_much_is_told_what_can_be_had(tmp_path, capsys):
    folder = published_folder(tmp_path / "llama", "llama-2-7b-chat-hf")
    asked = ["fit", str(folder), "--memory", "24GiB", "--home", str(tmp_path)]
    assert run([*asked, "--concurrency", "8"]) == 5
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("It does not fit in any form.")
    shorter, fewer, in_8_bits = lines[start + 1 : start + 4]
    assert shorter.startswith("With less context it fits as NF4 double quant: up to ")
    assert fewer.startswith("With fewer requests at once it fits as NF4: ")
    assert in_8_bits.startswith("With --kv-cache-dtype fp8 it fits as ")
    assert run([*asked, "--concurrency", "8", "--kv-cache-dtype", "fp8"]) == 0
    assert (
        in_8_bits.removeprefix("With --kv-cache-dtype fp8 it f").removesuffix(".") in capsys.readouterr().out
    )
    num_requests = fewer.split(": ")[1].split()[0]
    assert run([*asked, "--concurrency", num_requests]) == 0


@pytest.mark.parametrize(("limit_bytes", "is_told"), [(2**20, True), (10**11, False), (None, False)])
def test_a_cpu_whose_engine_would_limit_its_cache_is_told_so(fit, capsys, monkeypatch, limit_bytes, is_told):
    machine = Machine("cpu", "", 10**12, 10**12, kv_limit_bytes=limit_bytes)
    monkeypatch.setattr("ondol.cli.fit.this_machine", lambda device: machine)
    assert fit("--device", "cpu") == 0
    assert ("takes 1.0 MiB of KV cache at most; --kv-cache-memory" in capsys.readouterr().out) is is_told


def test_a_model_that_does_not_fit_is_told_the_last_resort_and_its_cost(tmp_path, capsys):
    folder = published_folder(tmp_path / "moe", "qwen1.5-moe-a2.7b")
    asked = ["fit", str(folder), "--memory", "8GiB", "--home", str(tmp_path)]
    assert run(asked) == 5
    captured = capsys.readouterr()
    (line,) = [
        line for line in captured.out.splitlines() if line.startswith("As a last resort it fits as NF4")
    ]
    flag = line.split(" with ")[1].removesuffix(".")
    assert "tokens/s. That is arithmetic, not a measurement." in captured.out
    assert f"As a last resort, slowly: {flag}." in captured.err
    assert run([*asked, *flag.split()]) == 0
    output = capsys.readouterr().out
    assert "It fits as NF4 double quant" in output
    assert "of weights stay in host memory" in output
    assert max(map(len, output.splitlines())) <= 110


@pytest.mark.parametrize("memory", ["much", "-1"])
def test_a_bad_size_is_wrong_usage(fit, capsys, memory):
    assert fit("--memory", memory) == 2
    assert "--memory" in capsys.readouterr().err


def test_a_model_that_is_not_there_has_its_exit_code(tmp_path, capsys):
    assert run(["fit", "no-such-model", "--json", "--home", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ondol: error: The model 'no-such-model' does not exist.")


def test_help_has_an_example(capsys):
    assert run(["fit", "--help"]) == 0
    assert "ondol fit llama-2-7b-chat" in capsys.readouterr().out
