from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.kv_cache import KVPlan
from ondol.engine.runner_builder import RunnerBuilder
from ondol.engine.warm_up import prefill_batch
from ondol.kernels import quantized
from ondol.kernels.backend import REFERENCE, deterministic_reference
from ondol.kernels.kv_layer import FLOAT8
from ondol.kernels.quantized import QuantizedMatrix
from ondol.modeling.footprint import DEQUANTIZE_BYTES, HEAP_BYTES, Load, measure_footprint
from ondol.modeling.loading import draw_model, load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
LOAD = Load(context=256, num_seqs=4, num_rows=64, num_cached_tokens=1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("footprint") / "tiny", "llama")


@pytest.fixture(scope="module")
def footprint(folder):
    return measure_footprint(draw_model(folder, CPU, "float32"))


def test_weights_are_those_of_a_load(folder, footprint):
    assert footprint.weights_bytes == load_model(folder, CPU, "float32").weights_bytes


def test_a_token_costs_keys_and_values_of_every_kv_head_in_every_layer(footprint):
    assert footprint.kv_token_bytes(torch.float32) == 2 * 3 * 2 * 16 * 4
    assert footprint.kv_token_bytes(torch.float16) == 2 * 3 * 2 * 16 * 2
    assert footprint.kv_token_bytes(FLOAT8) == 2 * 3 * 2 * (16 + 2)
    assert footprint.group_size == 2


def test_reading_codes_takes_more_workspace_than_reading_float32(footprint):
    assert footprint.workspace_bytes(LOAD, FLOAT8) > footprint.workspace_bytes(LOAD, torch.float32)


@pytest.mark.parametrize(
    "more",
    [
        {"context": 512},
        {"num_seqs": 8},
        {"num_rows": 128},
        {"num_cached_tokens": 4096},
        {"is_deterministic": True},
    ],
)
def test_the_workspace_grows_with_all_that_runs_at_once(footprint, more):
    assert footprint.workspace_bytes(replace(LOAD, **more), torch.float32) > footprint.workspace_bytes(
        LOAD, torch.float32
    )


def test_a_step_dequantizes_the_largest_matrix_piece_by_piece(folder, monkeypatch):
    head_weights = 512 * 64
    blueprint = draw_model(folder, CPU, "float32", OnLoad("nf4", quantize_head=True))
    whole = measure_footprint(blueprint)
    assert whole.dequantize_bytes == (4 + DEQUANTIZE_BYTES) * head_weights
    assert whole.workspace_bytes(LOAD, torch.float32) > whole.dequantize_bytes
    monkeypatch.setattr(quantized, "PIECE_WEIGHTS", 128 * 64)
    assert measure_footprint(blueprint).dequantize_bytes == 4 * head_weights + DEQUANTIZE_BYTES * 128 * 64


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_dequantizing_allocates_what_is_counted(folder, method):
    weights = load_model(folder, CPU, "float32", on_load=OnLoad(method, quantize_head=True))
    head = max(
        (module for _, module in weights.model.named_modules() if isinstance(module, QuantizedMatrix)),
        key=lambda matrix: matrix.num_weights,
    )
    blueprint = draw_model(folder, CPU, "float32", OnLoad(method, quantize_head=True))
    counted_bytes = measure_footprint(blueprint).dequantize_bytes
    assert 0.5 * counted_bytes <= allocated_bytes(lambda: head.dequantize(torch.float32)) <= counted_bytes


def allocated_bytes(compute):
    """The most that torch holds at once of what `compute` allocates."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        compute()
    sizes = [
        event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    assert sizes, "the profiler tells of memory"
    return max(accumulate(sizes))


@pytest.mark.parametrize(
    "make_kernels", [lambda: REFERENCE, deterministic_reference], ids=["usual", "deterministic"]
)
@pytest.mark.parametrize(
    "shape",
    [
        {"num_attention_heads": 16, "num_key_value_heads": 2},
        {"intermediate_size": 512, "vocab_size": 4096},
        {"hidden_size": 256, "intermediate_size": 512},
    ],
    ids=["many heads", "wide layers", "wide rows"],
)
def test_a_step_allocates_what_is_counted(tmp_path, shape, make_kernels):
    context, kernels = 512, make_kernels()
    folder = save_checkpoint(tmp_path, "llama", num_hidden_layers=1, max_position_embeddings=context, **shape)
    weights = load_model(folder, CPU, "float32", kernels=kernels)
    weights.model.prepare(context)
    builder = RunnerBuilder(weights, kernels, CPU, torch.float32, max_num_seqs=1, uses_buffers=False)
    runner = builder.build(KVPlan(context // 16, 16, context, 0)).runner
    batch = prefill_batch([context], 16, context // 16)
    load = Load(context, 1, context, context, is_deterministic=kernels.is_deterministic)
    footprint = measure_footprint(draw_model(folder, CPU, "float32"))
    counted_bytes = footprint.workspace_bytes(load, torch.float32) - HEAP_BYTES
    # A step's parts do not all need their scratch at once, though they are summed.
    assert 0.5 * counted_bytes < allocated_bytes(lambda: runner.run(batch)) < 1.05 * counted_bytes
