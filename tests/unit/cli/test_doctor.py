import json
import socket
import subprocess
import sys

import pytest
from huggingface_hub import constants
from support.chat_server import ChatServer
from support.daemon import clean_environment
from support.http_servers import QuietHandler, served

from ondol.cli import main as cli_main
from ondol.cli.diagnosis import machine, network, software
from ondol.config import Settings

FACTS = {
    "version": "2.13.0",
    "built_for_cuda": "13.0",
    "num_threads": 4,
    "cpu_capability": "AVX512",
    "has_triton": True,
    "gpus": [{"name": "NVIDIA H100", "total_bytes": 80 * 2**30, "capability": "9.0"}],
}
WITHOUT_GPU = {**FACTS, "gpus": []}


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A PATH with nothing but what the test writes: programs by name, as shell lines."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    return write


@pytest.fixture
def broken_torch(monkeypatch, tmp_path):
    """What another process sees when torch's own library does not load."""
    (tmp_path / "torch.py").write_text('raise OSError("libtorch_cpu.so: cannot open")', encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def settings(**values):
    return Settings(**values)


def test_the_report_covers_the_machine_and_ends_with_code_0():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "ondol", "doctor", "--json", "--port", str(port)],
        env=clean_environment() | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["exit_code"] == 0
    status = {finding["name"]: finding["status"] for finding in report["findings"]}
    assert {"Python", "libraries", "torch", "GPU", "CPU", "compiler", "memory"} <= set(status)
    assert {"model store", "Hub cache", "Hub", "Hub token", "port"} <= set(status)
    assert (status["Python"], status["torch"], status["port"]) == ("ok", "ok", "ok")


def test_a_broken_torch_is_told_and_decides_the_exit_code(broken_torch, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli_main.run(["doctor", "--port", "0"]) == 7
    shown = capsys.readouterr().out
    assert "libtorch_cpu.so: cannot open" in shown
    assert "What to do:" in shown
    assert "--force-reinstall torch" in shown


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(
        software.metadata, "requires", lambda name: ["click>=8", "no-such-library>=1", "click>=99"]
    )
    finding = software.libraries()
    assert finding.status == "fail"
    assert "no-such-library>=1, click>=99" in finding.message
    assert '-m pip install "no-such-library>=1" "click>=99"' in finding.advice


def test_a_library_of_an_extra_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(software.metadata, "requires", lambda name: ['no-such-library; extra == "dev"'])
    assert software.libraries().status == "ok"


def test_a_python_that_is_too_old_is_told(monkeypatch):
    monkeypatch.setattr(software.platform, "python_version", lambda: "3.9.1")
    assert software.python().status == "fail"


def test_without_a_compiler_a_package_is_named(programs):
    assert "build-essential" in software.compiler(FACTS).advice


def test_a_gpu_wants_triton(programs):
    programs("c++", "exit 0")
    assert software.compiler(FACTS).status == "ok"
    assert "triton" in software.compiler({**FACTS, "has_triton": False}).advice
    assert software.compiler({**WITHOUT_GPU, "has_triton": False}).status == "ok"


def test_a_gpu_that_torch_sees_is_described():
    assert "NVIDIA H100, 80.0 GiB, compute capability 9.0" in machine.gpu(FACTS, "auto").message


def test_no_gpu_is_fine_unless_the_settings_ask_for_one(programs):
    assert machine.gpu(WITHOUT_GPU, "auto").status == "ok"
    asked = machine.gpu(WITHOUT_GPU, "cuda")
    assert (asked.status, asked.exit_code) == ("fail", 7)


@pytest.mark.parametrize(
    ("script", "facts", "words"),
    [
        ("echo 'NVIDIA T4, 15360 MiB, 550.1'", WITHOUT_GPU, "torch cannot use it"),
        (
            "echo 'NVIDIA T4, 15360 MiB, 550.1'",
            {**WITHOUT_GPU, "built_for_cuda": None},
            "built for the CPU only",
        ),
        ("echo 'NVIDIA T4, 15360 MiB, 550.1'", None, "torch cannot use it"),
        ("echo 'Failed to initialize NVML'; exit 18", WITHOUT_GPU, "Failed to initialize NVML"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_a_warning_with_its_reason(programs, script, facts, words):
    programs("nvidia-smi", script)
    finding = machine.gpu(facts, "auto")
    assert finding.status == "warn"
    assert words in finding.message
    assert finding.advice


def test_an_old_processor_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    cpu_file = tmp_path / "cpuinfo"
    cpu_file.write_text("flags\t\t: sse4_2\n", encoding="utf-8")
    assert machine.cpu(None, cpu_file).status == "warn"
    cpu_file.write_text("flags\t\t: sse4_2 avx2\n", encoding="utf-8")
    assert machine.cpu(WITHOUT_GPU, cpu_file).status == "ok"


def test_little_free_memory_is_a_warning(tmp_path):
    memory_file = tmp_path / "meminfo"
    memory_file.write_text("MemTotal: 8388608 kB\nMemAvailable: 1048576 kB\n", encoding="ascii")
    finding = machine.memory(memory_file)
    assert (finding.status, finding.message) == ("warn", "1.0 GiB of 8.0 GiB are free")


def test_the_disk_of_a_folder_that_will_be_is_that_of_its_parent(tmp_path):
    finding = machine.disk("model store", tmp_path / "not" / "yet")
    assert str(tmp_path / "not" / "yet") in finding.message


def test_a_nearly_full_disk_is_a_warning(monkeypatch, tmp_path):
    usage = type(machine.shutil.disk_usage("/"))(10**12, 10**12, 10**9)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    assert machine.disk("model store", tmp_path).status == "warn"


def test_a_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert machine.disk("model store", tmp_path).status == "warn"


class Hub(QuietHandler):
    status = 200

    def do_HEAD(self):
        self.reply(self.status, b"")


def test_a_hub_that_answers_is_ok_and_a_failing_one_a_warning(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with served(Hub) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert network.hub().status == "ok"
        monkeypatch.setattr(Hub, "status", 503)
        assert "503" in network.hub().message
    assert network.hub().status == "warn"
    assert "HF_ENDPOINT" in network.hub().advice


def test_an_offline_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert network.hub().status == "ok"


def test_the_token_itself_is_never_shown(monkeypatch):
    monkeypatch.setattr(network, "get_token", lambda: "hf_secret")
    assert "hf_secret" not in repr(network.token())
    monkeypatch.setattr(network, "get_token", lambda: None)
    assert "ondol login" in network.token().message


def test_a_port_where_ondol_answers_is_ok():
    with ChatServer().serve() as server:
        finding = network.port(settings(port=int(server.url.rpartition(":")[2])))
    assert (finding.status, "answers" in finding.message) == ("ok", True)


def test_a_port_that_another_program_took_decides_the_exit_code():
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        finding = network.port(settings(port=other.getsockname()[1]))
    assert (finding.status, finding.exit_code) == ("fail", 9)
    assert "--port" in finding.advice


def test_a_host_that_does_not_exist_is_told():
    finding = network.port(settings(host="no-such-host.invalid", port=8000))
    assert (finding.status, finding.exit_code) == ("fail", 2)
