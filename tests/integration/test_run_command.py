"""`ondol run` with a temporary daemon of its own: a real engine, for the length of one command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import clean_environment, poll
from support.served_models import save_endless_model

# A port where nothing listens, so that no daemon of the machine's is found.
NO_DAEMON = {"ONDOL_PORT": "9"}
SMALL = ("--threads", "1", "--kv-cache-memory", "4MiB")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_endless_model(tmp_path_factory.mktemp("run") / "tiny-llama")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ondol", "run", *map(str, arguments), *SMALL],
        env=clean_environment() | NO_DAEMON,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_with(word):
    """Ids of the processes that have the word in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if str(word).encode() in command:
                found.append(int(folder.name))
    return found


def test_one_prompt_is_answered_and_nothing_is_left_behind(model_folder):
    process = start(model_folder, "안녕", "--max-tokens", "4", "--temperature", "0", "--json")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    answer = json.loads(stdout)
    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("tiny-llama", 4)
    assert "ondol serve" in stderr
    assert processes_with(model_folder) == []


def test_a_killed_command_leaves_no_daemon_behind(model_folder):
    process = start(model_folder, "안녕")
    try:
        assert process.stdout.read(1)  # it answers, so its daemon has an engine
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    poll(lambda: processes_with(model_folder), lambda left: left == [], timeout_s=60)


def test_a_model_that_cannot_be_served_is_told_once_with_its_exit_code(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    process = start(folder, "hi")
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (8, "")
    assert stderr.count("ondol: error: ") == 1
    assert "config.json" in stderr
