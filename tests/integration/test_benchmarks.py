"""The scripts in benchmarks/ run against the real engine, and end with one JSON line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model"), "llama")


@pytest.mark.slow  # an engine of its own
def test_the_engine_is_measured_without_http(model_folder):
    done = run_script(
        *("engine.py", "concurrent", "shared-prefix", "--model-folder", str(model_folder), "--repeat", "1"),
        *("--num-requests", "4", "--concurrency", "2", "--input-tokens", "96", "--output-tokens", "6"),
        *("--threads", "1", "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    concurrent, shared = (entry["repeats"][0] for entry in report["workloads"])
    assert (concurrent["num_succeeded"], concurrent["num_wrong_length"]) == (4, 0)
    assert concurrent["num_output_tokens"] == 24
    assert shared["num_cached_tokens"] >= 3 * 32  # the prefix, which the first request left
    assert report["target"]["engine"]["device"] == "cpu"


def test_the_engine_benchmark_without_a_model_is_one_line():
    done = run_script("engine.py", "single")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --model-folder")


def test_the_roofline_of_a_model_is_one_json_object(model_folder):
    done = run_script("roofline.py", "--model-folder", str(model_folder), "--threads", "1")
    report = json.loads(done.stdout)
    assert report["one_stream_tokens_per_s"] > 0
    assert report["batch"]["streams"] == 16


def test_serving_is_the_bench_command():
    done = run_script("serving.py", "--url", "http://127.0.0.1:1/v1")
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow  # an engine for each method, one after the other
def test_quantization_methods_are_measured(model_folder):
    save_byte_level_tokenizer(model_folder)
    done = run_script(
        *(
            "quantization.py",
            "single",
            "--model-folder",
            str(model_folder),
            "--repeat",
            "1",
            "--threads",
            "1",
        ),
        *("--num-requests", "1", "--input-tokens", "8", "--output-tokens", "4"),
        *("--method", "int4", "--method", "nf4+double", "--method", "none"),
    )
    assert done.returncode == 0, done.stderr
    methods = json.loads(done.stdout.splitlines()[-1])["methods"]
    assert [entry["method"] for entry in methods] == ["none", "nf4+double", "int4"]
    weights = [entry["weights_bytes"] for entry in methods]
    assert max(weights) == weights[0]
    for entry in methods:
        assert entry["resident_bytes_loaded"] > entry["weights_bytes"]
        assert entry["workloads"][0]["summary"]["output_tokens_per_s"]["median"] > 0
        for figures in entry["error"].values():
            assert (figures["relative_logit_error"] > 0) == (entry["method"] != "none")


@pytest.mark.slow  # a process that imports torch and loads a model
def test_the_price_of_grammars_for_those_beside_them_is_measured(model_folder):
    save_byte_level_tokenizer(model_folder)
    done = run_script(
        *("constrained.py", "--model-folder", str(model_folder), "--seconds", "0", "--threads", "1"),
        *("--num-plain", "2", "--num-constrained", "1", "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["num_pairs"] == 3
    assert min(report["median_step_ms"].values()) > 0
    for figures in (report["slowdown"], report["processor_slowdown"]):
        assert figures["lowest"] <= figures["median"] <= figures["highest"]
