"""A daemon that quantizes what it serves."""

import json
import urllib.request

import pytest
from support.daemon import Daemon
from support.served_models import save_served_model

from ondol.errors import DoesNotFit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_served_model(tmp_path_factory.mktemp("models") / "tiny-moe", "qwen2_moe")


def get(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def test_settings_reach_the_weights_and_the_report_tells(folder):
    flags = [
        "--quantization",
        "nf4",
        "--bnb-4bit-use-double-quant",
        "--llm-int8-skip-modules",
        "k_proj,v_proj",
    ]
    with Daemon(str(folder), *flags) as daemon:
        url = daemon.wait_for_line(r"serving tiny-moe on (http://127\.0\.0\.1:\d+)").group(1)
        info = get(f"{url}/models/info?model=tiny-moe")
        kinds = {entry["kind"]: entry for entry in info["stored"]}
        # Query and output, three of the shared expert, three of each of the eight experts; three layers.
        assert kinds["nf4"]["num_modules"] == 3 * (2 + 3 + 3 * 8)
        assert "model.layers.*.self_attn.k_proj" in info["unquantized"]
        assert info["weights_bytes"] == sum(entry["num_bytes"] for entry in info["stored"])
        body = json.dumps({"model": "tiny-moe", "prompt": "온돌", "max_tokens": 8}).encode()
        request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] > 0
        assert any("not quantized: " in line for line in daemon.seen)


def test_auto_that_cannot_fit_ends_with_the_numbers_and_the_documented_code(folder):
    with Daemon(str(folder), "--quantization", "auto", "--kv-cache-memory", "1000TiB") as daemon:
        code, _ = daemon.end()
        assert code == DoesNotFit.exit_code
        assert "Not even nf4 with double quantization fits" in daemon.seen[-1]
