"""benchmarks/gpu/run.py runs end to end in tiny sizes where only torch, triton and transformers are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "run.py"
PART_FAMILIES = {
    *("environment", "kernels", "decode", "saturated", "decode-kv-fp8", "saturated-kv-fp8"),
    *("transformers", "invariance", "determinism", "offload"),
}

# A GPU machine's environment: what is imported from outside it is not there.
BARE = """
import runpy, sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Missing())
sys.path[:] = [folder for folder in sys.path if not folder.endswith("/server")]
sys.argv = {argv}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MISSING = ("msgspec", "llguidance", "pydantic", "pydantic_settings", "fastapi", "starlette", "bitsandbytes")


pytestmark = pytest.mark.slow  # they begin with a whole run of the benchmark


def run_bare(*arguments):
    program = BARE.format(missing=set(MISSING), argv=[str(SCRIPT), *arguments])
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The whole tiny run, and the file that its figures went to."""
    file = tmp_path_factory.mktemp("gpu") / "figures.jsonl"
    done = run_bare("--smoke", "--out", str(file))
    assert done.returncode == 0, done.stderr[-4000:]
    return done, [json.loads(line) for line in file.read_text().splitlines()]


def test_every_part_leaves_figures_without_the_packages_of_the_daemon(smoke):
    _, lines = smoke
    assert {line["part"].partition(":")[0] for line in lines} == PART_FAMILIES
    assert lines[0]["stand_ins"] == ["msgspec", "llguidance", "pydantic_settings"]
    assert not [line for line in lines if line["figure"] == "failed"]


def test_the_last_line_is_one_json_object_that_sums_the_run_up(smoke):
    done, lines = smoke
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["failed"] == []
    assert summary["skipped"] == []
    assert summary["num_kernel_cases_right"] > 50
    assert {entry["kind"] for entry in summary["decode"]} == {"bf16", "int8", "nf4", "int4"}
    assert len(summary["decode"]) == len([line for line in lines if line["figure"] == "decode"])


def test_figures_stand_beside_ceilings_that_they_do_not_reach(smoke):
    _, lines = smoke
    for line in lines:
        if line["figure"] in ("decode", "saturated"):
            assert 0 < line["share_of_ceiling"] < 1
    by_model = {line["model"]: line["active_experts"] for line in lines if line["figure"] == "decode"}
    assert by_model["tiny-dense"] is None
    assert 4 <= by_model["tiny-moe"] <= 6


def test_layers_in_host_memory_are_measured_beside_the_bus(smoke):
    _, lines = smoke
    prompt, step = [line for line in lines if line["figure"].startswith("offloaded")]
    assert prompt["host_bytes"] == step["host_bytes"] > 0
    assert 2 < step["num_host_layers"] < step["num_layers"]
    bus_ms = step["host_bytes"] / step["host_copy_gb_per_s"] / 1e6
    assert step["ceiling_ms"] >= bus_ms
    assert prompt["ceiling_ms"] >= bus_ms


def test_equal_requests_give_equal_answers_on_the_reference(smoke):
    _, lines = smoke
    found = [line for line in lines if line["figure"] == "invariance"]
    assert [line["deterministic"] for line in found] == [False, True]
    for line in found:
        assert line["num_equal_in_batch"] == line["num_equal_with_cached_prefix"] == line["num_requests"]


def test_deterministic_mode_is_measured_beside_the_default(smoke):
    _, lines = smoke
    steps = [line["ratio"]["median"] for line in lines if line["figure"].startswith("cost of")]
    assert len(steps) == 3
    assert all(ratio > 0 for ratio in steps)
