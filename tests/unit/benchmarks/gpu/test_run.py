import json
import subprocess

import pytest

from benchmarks.gpu import run
from benchmarks.gpu.record import Recorder, newest_run, read_run


def test_a_family_names_all_its_parts(capsys):
    assert run.main(["--list", "--only", "saturated"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *("saturated:Qwen1.5-7B-bf16", "saturated:Qwen1.5-7B-int4"),
        *("saturated:Qwen1.5-MoE-A2.7B-bf16", "saturated:Qwen1.5-MoE-A2.7B-int4"),
    ]


def test_caches_of_8_bits_are_measured_where_they_weigh_most(capsys):
    assert run.main(["--list", "--only", "saturated-kv-fp8", "--only", "decode-kv-fp8"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert "saturated-kv-fp8:Qwen1.5-MoE-A2.7B-int4" in names
    assert "decode-kv-fp8:Llama-2-7B" in names


def test_every_model_is_decoded_and_every_part_has_a_name_of_its_own(capsys):
    assert run.main(["--list"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == len(set(names))
    models = {name.partition(":")[2] for name in names if name.startswith("decode:")}
    assert models == {"Llama-2-7B", "Qwen2-7B", "Qwen1.5-7B", "Qwen1.5-MoE-A2.7B"}


def test_an_unknown_part_is_refused_before_anything_is_written(capsys, tmp_path):
    assert run.main(["--only", "nothing", "--out", str(tmp_path / "figures.jsonl")]) == 2
    assert "no part is called nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_the_run_says_how_to_try_it_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="--smoke"):
        run.main(["--run", "x", "--only", "environment", "--out", str(tmp_path / "figures.jsonl")])


def test_a_part_whose_process_fails_is_recorded_and_summed_up(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    file = tmp_path / "figures.jsonl"
    assert run.main(["--only", "environment", "--out", str(file), "--commit", "abc"]) == 1
    printed = capfd.readouterr()
    assert "--smoke" in printed.err
    summary = json.loads(printed.out.splitlines()[-1])
    assert summary["failed"] == ["environment"]
    assert [json.loads(line)["figure"] for line in file.read_text().splitlines()] == ["failed", "part"]


def test_a_part_that_takes_too_long_is_ended(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "PART_LIMIT_S", 0.01)
    file = tmp_path / "figures.jsonl"
    assert run.main(["--only", "decode:Qwen2-7B", "--out", str(file)]) == 1
    line, end = [json.loads(line) for line in file.read_text().splitlines()]
    assert line["figure"] == "failed"
    assert line["reason"].startswith("ended after")
    assert end["figure"] == "part"


def test_a_run_goes_on_with_what_it_lacks(capfd, monkeypatch, tmp_path):
    begun = []

    def end_at_once(command, **options):
        begun.append(command[command.index("--only") + 1])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run.subprocess, "run", end_at_once)
    file = tmp_path / "figures.jsonl"
    arguments = ["--only", "environment", "--only", "invariance", "--out", str(file)]
    run_id = "2026-01-01T00:00:00+00:00"
    Recorder(file, "an older run", "invariance:Qwen2-7B").figure("part", seconds=1.0)
    Recorder(file, run_id, "environment").figure("part", seconds=1.0)
    assert run.main([*arguments, "--resume", "--within", "50"]) == 0
    left_over = "no time was left for environment invariance:Qwen2-7B; --resume goes on with them"
    assert left_over in capfd.readouterr().err
    assert begun == []
    assert run.main([*arguments, "--resume"]) == 0
    # What the machine is, is asked again: it may be another one.
    assert begun == ["environment", "invariance:Qwen2-7B"]
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["run"] == run_id
    assert newest_run(file) == (run_id, {"environment", "invariance:Qwen2-7B"})


def test_a_part_that_is_cut_short_for_want_of_time_is_measured_again(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "LEAST_S", 0.001)
    file = tmp_path / "figures.jsonl"
    assert run.main(["--only", "decode:Qwen2-7B", "--out", str(file), "--within", "0.05"]) == 1
    (line,) = read_run(file, newest_run(file)[0])
    assert line["reason"].startswith("ended after")
    assert newest_run(file)[1] == frozenset()


def test_what_stops_one_measurement_is_recorded_and_the_next_begins(capsys, tmp_path):
    file = tmp_path / "figures.jsonl"
    recorder = Recorder(file, "run", "part")
    recorder.attempt("first", lambda: 1 / 0)
    recorder.attempt("second", lambda: recorder.figure("kernel", value=1.0))
    with file.open("a") as lines:
        lines.write('{"run": "run", "cut off')
    failed, measured = read_run(file, "run")
    assert (failed["what"], failed["reason"]) == ("first", "ZeroDivisionError: division by zero")
    assert measured["value"] == 1.0
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert read_run(file, "another run") == []
