import signal
import socket

import pytest

from ondol.api.server import bind_socket
from ondol.cli.main import run
from ondol.cli.serve import url_of
from ondol.cli.signals import terminated_like_interrupted


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty store, so that no test sees the models of whoever runs it."""
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def one_line_of_error(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("ondol: error: ")
    return line


def test_a_port_in_use_is_told_before_any_model_is_looked_for(home, capsys):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        assert run(["serve", "no-such-model", "--port", str(port)]) == 9
    line = one_line_of_error(capsys)
    assert f"port {port}" in line
    assert "--port" in line


def test_a_host_that_others_can_reach_needs_a_key(home, capsys):
    assert run(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "--api-key" in one_line_of_error(capsys)


@pytest.mark.parametrize("way", [["--api-key", "secret"], ["--allow-unauthenticated"]])
def test_a_key_or_the_users_word_opens_other_hosts(home, capsys, way):
    # It gets as far as looking for the model.
    assert run(["serve", "no-such-model", "--host", "0.0.0.0", "--port", "0", *way]) == 3
    assert "no-such-model" in one_line_of_error(capsys)


def test_an_unknown_model_is_told_with_the_known_ones(home, capsys):
    assert run(["serve", "no-such-model", "--port", "0"]) == 3
    assert "starter" in one_line_of_error(capsys)


def test_a_folder_without_a_model_is_refused(home, tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert run(["serve", str(folder), "--port", "0"]) == 8
    assert str(folder) in one_line_of_error(capsys)


def test_the_model_may_come_from_the_environment(home, capsys, monkeypatch):
    monkeypatch.setenv("ONDOL_MODEL", "model-of-the-variable")
    assert run(["serve", "--port", "0"]) == 3
    assert "model-of-the-variable" in one_line_of_error(capsys)


@pytest.mark.parametrize(("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_the_url_names_the_port_that_was_taken(host, start):
    with bind_socket(host, 0) as listener:
        assert url_of(listener) == f"{start}{listener.getsockname()[1]}"


def test_a_termination_before_serving_cleans_up_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with terminated_like_interrupted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
