"""`ondol serve` as a process of its own: what it prints and how it ends."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from support.checkpoints import save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

START_TIMEOUT_S = 120
SMALL = ("--port", "0", "--threads", "1", "--kv-cache-memory", "4MiB")


class Daemon:
    """A running `ondol serve` and the lines of its stderr."""

    def __init__(self, *arguments: str) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ondol", "serve", *arguments, *SMALL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (line := self.lines.get(timeout=max(0.01, deadline_s - time.monotonic()))) is not None:
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the daemon ended without a line like {pattern!r}: {self.seen}")

    def end(self) -> tuple[int, str]:
        """Exit code and what stdout held; lines that nobody waited for are added to `seen`."""
        code = self.process.wait(timeout=START_TIMEOUT_S)
        self._reader.join()
        while (line := self.lines.get_nowait()) is not None:
            self.seen.append(line)
        with self.process.stdout as stdout:
            return code, stdout.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def serve():
    daemons = []

    def start(*arguments):
        daemons.append(Daemon(*arguments))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def model_folder(tmp_path):
    folder = save_checkpoint(tmp_path / "tiny-llama", "llama")
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    save_byte_level_tokenizer(folder, vocab_size)
    return folder


def has_ended(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def child_process_ids(process_id: int) -> list[int]:
    with open(f"/proc/{process_id}/task/{process_id}/children", encoding="ascii") as children:
        return [int(word) for word in children.read().split()]


@pytest.mark.parametrize(
    ("name_flag", "name", "sent"),
    [([], "tiny-llama", signal.SIGINT), (["--served-model-name", "my-model"], "my-model", signal.SIGTERM)],
)
def test_it_serves_under_the_folders_or_a_chosen_name_until_a_signal_ends_it(
    serve, model_folder, name_flag, name, sent
):
    daemon = serve(str(model_folder), *name_flag)
    url = daemon.wait_for_line(rf"serving {name} on (http://127\.0\.0\.1:\d+)").group(1)
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as response:
        assert [card["id"] for card in json.load(response)["data"]] == [name]
    engines = child_process_ids(daemon.process.pid)
    assert engines
    daemon.process.send_signal(sent)
    assert daemon.end() == (0, "")
    assert all(has_ended(process_id) for process_id in engines)
    assert not any("Traceback" in line for line in daemon.seen)


def test_a_corrupt_checkpoint_ends_it_with_one_reason_and_the_documented_code(serve, model_folder):
    (weights,) = model_folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    daemon = serve(str(model_folder))
    code, _ = daemon.end()
    assert code == 8
    assert daemon.seen[-1].startswith("ondol: error: ")
    assert not any("Traceback" in line for line in daemon.seen)


def test_ctrl_c_while_loading_ends_it_with_code_130_and_no_traceback(serve, model_folder):
    daemon = serve(str(model_folder))
    daemon.wait_for_line("loading tiny-llama from ")
    daemon.process.send_signal(signal.SIGINT)
    code, _ = daemon.end()
    # A machine may also be faster than the signal: then it was a clean shutdown.
    assert code == (0 if any("serving" in line for line in daemon.seen) else 130)
    assert not any("Traceback" in line for line in daemon.seen)
