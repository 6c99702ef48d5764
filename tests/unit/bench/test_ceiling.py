"""Measured rates and a model's costs, joined."""

import json

import pytest

from ondol.bench.ceiling import CeilingMeter, measure_hardware, read_config
from ondol.bench.plan import Sizes
from ondol.bench.roofline import ModelCost
from ondol.errors import ModelRefused, OndolError

CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
RATES = {"copy_gb_per_s": 1.0, "read_gb_per_s": 2.0, "gemm_gflop_per_s": 10.0}


def meter():
    return CeilingMeter(ModelCost.of_config(CONFIG), "float32", RATES)


def test_the_machine_is_measured_in_a_process_of_its_own():
    rates = measure_hardware("float32", 1)
    assert rates["num_threads"] == 1
    assert min(rates["copy_gb_per_s"], rates["read_gb_per_s"], rates["gemm_gflop_per_s"]) > 0


def test_a_measurement_that_fails_says_why():
    with pytest.raises(OndolError, match="float7"):
        measure_hardware("float7", None)


def test_the_better_of_copying_and_reading_bounds_memory():
    assert meter().rates.memory_gb_per_s == 2.0


def test_the_description_gives_bytes_and_the_one_stream_ceiling():
    described = meter().describe()
    elements = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 64
    assert described["weights_bytes_per_step"] == 4 * elements
    assert described["weights_bytes"] == 4 * (elements + 32 * 64)
    assert described["one_stream_tokens_per_s"] == pytest.approx(2e9 / (4 * elements), abs=0.001)


def test_the_share_of_the_ceiling_that_was_reached():
    figures = {
        "num_succeeded": 4,
        "num_input_tokens": 40,
        "num_cached_tokens": 0,
        "num_output_tokens": 80,
        "output_tokens_per_s": 100.0,
    }
    ceiling = meter().beside(figures, Sizes(4, 2, 10, 20))
    assert ceiling["reached"] == pytest.approx(100 / ceiling["output_tokens_per_s"], abs=0.0001)


def test_nothing_measured_has_no_ceiling():
    assert meter().beside({"num_succeeded": 0, "num_output_tokens": 0}, Sizes(1, 1, 1, 1)) is None


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_usable_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        read_config(tmp_path)


def test_a_config_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read_config(tmp_path) == CONFIG
