import io

import pytest

from ondol.cli.main import run
from ondol.model_manager.store import ModelStore


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def registered(tmp_path):
    with ModelStore(tmp_path).staging("mine") as folder:
        (folder / "config.json").write_text("{}")
    return tmp_path / "models" / "mine"


def test_yes_removes_without_asking_and_tells_what_came_back(tmp_path, registered, capsys):
    assert run(["rm", "mine", "--yes", "--home", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert not registered.exists()
    assert captured.out == ""
    assert captured.err == "Removed mine; 0.00 GB are free again.\n"


@pytest.mark.parametrize(("answer", "code", "is_there"), [("y\n", 0, False), ("n\n", 130, True)])
def test_a_terminal_is_asked(tmp_path, registered, monkeypatch, capsys, answer, code, is_there):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert run(["rm", "mine", "--home", str(tmp_path)]) == code
    assert f"{registered} would be removed; this frees 0.00 GB." in capsys.readouterr().err
    assert registered.exists() is is_there


def test_without_a_terminal_and_without_yes_nothing_is_removed(tmp_path, registered, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(["rm", "mine", "--home", str(tmp_path)]) == 2
    assert registered.exists()
    assert "--yes" in capsys.readouterr().err


def test_a_folder_of_ones_own_is_a_usage_error(tmp_path, capsys):
    assert run(["rm", str(tmp_path), "--yes"]) == 2
    assert "folder of your own" in capsys.readouterr().err


def test_a_model_that_is_not_here_ends_with_exit_code_3(tmp_path):
    assert run(["rm", "nosuch", "--yes", "--home", str(tmp_path)]) == 3
