from pathlib import Path

import pytest

from ondol.config import Settings
from ondol.model_manager.engine_config import engine_config
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.resolve import Recommendation, ResolvedModel

RECOMMENDED = Recommendation(quantization="nf4", max_model_len=100, kv_cache_bytes=1000)
SET = {"quantization": "none", "max_model_len": 200, "kv_cache_memory": 2000}


def config(settings=None, order=None):
    resolved = ResolvedModel("m", Path("/m"), {}, RECOMMENDED)
    built = engine_config(LoadOrder("m", **order or {}), resolved, Settings(**settings or {}).engine(), (7,))
    return built.quantization.method, built.max_model_len, built.kv_cache_bytes


@pytest.mark.parametrize(
    ("settings", "order", "expected"),
    [
        ({}, {}, ("nf4", 100, 1000)),
        (SET, {}, ("none", 200, 2000)),
        (
            SET,
            {"quantization": "int8", "max_model_len": 300, "kv_cache_bytes": 3000},
            ("int8", 300, 3000),
        ),
        ({}, {"quantization": "none"}, ("none", 100, 1000)),
    ],
)
def test_the_order_goes_before_the_settings_and_these_before_the_catalog(settings, order, expected):
    assert config(settings, order) == expected


@pytest.mark.parametrize(
    ("settings", "order", "expected"),
    [
        ({}, {}, "auto"),
        ({"kv_cache_dtype": "fp8"}, {}, "fp8"),
        ({"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "auto"}, "auto"),
    ],
)
def test_the_order_decides_on_the_caches_precision_and_else_the_settings_do(settings, order, expected):
    resolved = ResolvedModel("m", Path("/m"), {})
    built = engine_config(LoadOrder("m", **order), resolved, Settings(**settings).engine(), ())
    assert built.kv_cache_dtype == expected


@pytest.mark.parametrize(
    ("order", "expected"), [({}, 3 * 2**29), ({"offload_bytes": 7}, 7), ({"offload_bytes": 0}, 0)]
)
def test_the_order_decides_on_offload_and_else_the_settings_do_in_gib(order, expected):
    resolved, settings = ResolvedModel("m", Path("/m"), {}), Settings(cpu_offload_gb=1.5).engine()
    assert engine_config(LoadOrder("m", **order), resolved, settings, ()).offload_bytes == expected


@pytest.mark.parametrize(("order", "expected"), [({}, True), ({"deterministic": False}, False)])
def test_the_order_decides_on_deterministic_mode_and_else_the_settings_do(order, expected):
    resolved, settings = ResolvedModel("m", Path("/m"), {}), Settings(deterministic=True).engine()
    assert engine_config(LoadOrder("m", **order), resolved, settings, ()).deterministic is expected


def test_the_tokenizers_end_tokens_and_the_folder_are_passed_on():
    resolved = ResolvedModel("m", Path("/m"), {})
    built = engine_config(LoadOrder("m"), resolved, Settings().engine(), (7, 8))
    assert (built.model_path, built.end_token_ids, built.quantization.method) == ("/m", (7, 8), "none")


@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_is_the_settings_choice(deterministic):
    settings = Settings(deterministic=deterministic).engine()
    built = engine_config(LoadOrder("m"), ResolvedModel("m", Path("/m"), {}), settings, ())
    assert built.deterministic is deterministic
