import pytest

from benchmarks.gpu import run


def test_a_family_names_all_its_parts(capsys):
    assert run.main(["--list", "--only", "saturated"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *("saturated:Qwen1.5-7B-bf16", "saturated:Qwen1.5-7B-int4"),
        *("saturated:Qwen1.5-MoE-A2.7B-bf16", "saturated:Qwen1.5-MoE-A2.7B-int4"),
    ]


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
