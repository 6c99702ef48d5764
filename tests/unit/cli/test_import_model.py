import socket

import pytest
from support import gguf_files
from support.checkpoints import save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

from ondol.cli.main import run


@pytest.fixture
def closed_network(monkeypatch):
    def connect(*arguments):
        raise AssertionError("a closed network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def test_import_asks_no_network_and_prints_the_folder_on_stdout(tmp_path, closed_network, capsys):
    source = save_checkpoint(tmp_path / "tiny", "llama")
    save_byte_level_tokenizer(source)
    capsys.readouterr()
    assert run(["import", str(source), "--name", "mine", "--home", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'models' / 'mine'}\n"
    assert "mine is registered" in captured.err


def test_a_gguf_file_is_imported_without_a_network_too(tmp_path, closed_network, capsys):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights())
    assert run(["import", str(path), "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'models' / 'tiny'}\n"


def test_a_gguf_file_of_an_unknown_kind_ends_with_exit_code_8(tmp_path, capsys):
    path = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.random_weights(), architecture="gemma")
    assert run(["import", str(path), "--home", str(tmp_path / "home")]) == 8
    assert "known are llama and qwen2" in capsys.readouterr().err


def test_a_folder_that_is_not_there_ends_with_exit_code_2(tmp_path, capsys):
    assert run(["import", str(tmp_path / "absent"), "--home", str(tmp_path)]) == 2
    assert "neither a model folder nor a .gguf file" in capsys.readouterr().err
