"""`ondol bench` as a person runs it, against a scripted server over real HTTP."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from support.stub_openai import StubServer, answer_exactly

from ondol.cli.main import run

SMALL = ["--num-requests", "4", "--concurrency", "2", "--input-tokens", "30", "--output-tokens", "5"]


def bench(capsys, server, *arguments):
    code = run(["bench", "--url", server.url, *arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured.err


def test_the_last_line_is_one_json_object_with_figures_and_where_they_come_from(capsys):
    with StubServer(answer_exactly).running_in_thread() as server:
        code, report, shown = bench(capsys, server, "single", "concurrent", *SMALL, "--repeat", "2")
    assert code == 0
    assert report["target"]["model_card"] == {"id": "stub", "source": "scripted"}
    assert {"versions", "commit", "machine", "measured_at", "load_average_after"} <= set(report)
    assert [entry["workload"] for entry in report["workloads"]] == ["single", "concurrent"]
    repeats = report["workloads"][0]["repeats"]
    assert [figures["num_succeeded"] for figures in repeats] == [4, 4]
    assert [figures["num_output_tokens"] for figures in repeats] == [20, 20]
    assert [figures["num_input_tokens"] for figures in repeats] == [120, 120]
    assert "single" in shown
    assert "TTFT" in shown


def test_every_workload_runs(capsys):
    with StubServer(answer_exactly).running_in_thread() as server:
        code, report, shown = bench(capsys, server, "all", *SMALL, "--repeat", "1")
    assert code == 0
    assert [entry["workload"] for entry in report["workloads"]] == [
        "single",
        "concurrent",
        "shared-prefix",
        "long-prompt",
        "mixed",
        "throughput",
    ]
    assert "\nmixed, cold: TTFT" in shown or "\nshared-prefix, cold: TTFT" in shown


def test_what_is_said_is_korean_where_the_locale_is_and_the_json_is_not(capsys):
    with StubServer(answer_exactly).running_in_thread() as server:
        code = run(["--lang", "ko", "bench", "--url", server.url, "all", *SMALL, "--repeat", "1"])
    captured = capsys.readouterr()
    assert code == 0
    assert json.loads(captured.out.splitlines()[-1])["workloads"][0]["workload"] == "single"
    assert "single, 1회 중 1회째: 요청 4건, 동시 2건, 입력 30토큰, 출력 5토큰" in captured.err
    words = captured.err
    for name in ("shared-prefix", "long-prompt"):
        words = words.replace(name, "")
    assert not re.search("[a-z]{3,} [a-z]{3,}", words), words


def test_failures_are_shown_with_their_reasons_and_end_with_code_1(capsys):
    served = []

    async def script(body, reply):
        served.append(body)
        if len(served) > 3 and len(served) % 2:  # probes and warm-up succeed
            await reply.error(500, "the engine stumbled")
        else:
            await answer_exactly(body, reply)

    with StubServer(script).running_in_thread() as server:
        code, report, shown = bench(capsys, server, "single", *SMALL, "--repeat", "1")
    assert code == 1
    assert report["workloads"][0]["repeats"][0]["failures"] == {"HTTP 500: the engine stumbled": 2}
    assert "2 failed: HTTP 500: the engine stumbled" in shown


def test_the_ceiling_stands_beside_the_figures(capsys, tmp_path):
    config = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "ondol.json").write_text('{"sha256": "abc"}')
    with StubServer(answer_exactly).running_in_thread() as server:
        _, report, _ = bench(
            capsys,
            server,
            "single",
            *SMALL,
            "--repeat",
            "1",
            "--model-folder",
            str(tmp_path),
            "--kv-cache-dtype",
            "fp8",
        )
    assert report["ceiling"]["hardware"]["copy_gb_per_s"] > 0
    assert report["ceiling"]["kv_bytes_per_token"] == 2 * 2 * 4 * (8 + 2)
    assert report["workloads"][0]["repeats"][0]["ceiling"]["reached"] > 0
    assert report["target"]["model_record"] == {"sha256": "abc"}


def test_the_json_can_go_to_a_file_as_well(capsys, tmp_path):
    with StubServer(answer_exactly).running_in_thread() as server:
        _, report, _ = bench(
            capsys, server, "single", *SMALL, "--repeat", "1", "--output", str(tmp_path / "r.json")
        )
    assert json.loads((tmp_path / "r.json").read_text()) == report


def test_an_unreachable_daemon_ends_with_code_6_and_one_line(capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert run(["bench", "--url", f"http://127.0.0.1:{port}/v1"]) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("url", ["foo", "ftp://x", "http://[::1", "http://127.0.0.1:bar"])
def test_what_is_no_address_ends_with_code_6_and_one_line(capsys, url):
    assert run(["bench", "--url", url]) == 6
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ondol: error: {url} is no address of a server: ")
    assert len(captured.err.splitlines()) == 1


def test_an_output_that_cannot_be_written_is_told_before_anything_is_measured(capsys, tmp_path):
    with StubServer(answer_exactly).running_in_thread() as server:
        code, report, shown = bench(capsys, server, "single", "--output", str(tmp_path / "no" / "r.json"))
        assert server.bodies == []
    assert (code, report) == (2, None)
    assert "r.json: No such file" in shown


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_extra_body_that_is_no_object_is_refused(capsys, text):
    assert run(["bench", "--extra-body", text]) == 2
    assert "--extra-body" in capsys.readouterr().err


def test_ctrl_c_prints_what_was_measured_so_far():
    served = []

    async def script(body, reply):
        served.append(body)
        if len(served) <= 3 + 2:  # two probes, the warm-up, and two requests of the run
            await answer_exactly(body, reply)
        else:
            await reply.start()  # and then nothing

    with StubServer(script).running_in_thread() as server:
        command = [sys.executable, "-m", "ondol", "bench", "--url", server.url, "single", *SMALL]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline_s = time.monotonic() + 60
        while len(served) < 7:
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, shown = process.communicate(timeout=30)
    report = json.loads(out.splitlines()[-1])
    assert process.returncode == 130
    assert report["is_interrupted"]
    figures = report["workloads"][0]["repeats"][0]
    assert (figures["num_succeeded"], figures["failures"]) == (2, {"interrupted": 2})
    assert "Traceback" not in shown
