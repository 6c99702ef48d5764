from dataclasses import replace

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.kernels import quantized
from ondol.kernels.kv_layer import FLOAT8
from ondol.modeling.footprint import DEQUANTIZE_BYTES, Load, measure_footprint
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
    "more", [{"context": 512}, {"num_seqs": 8}, {"num_rows": 128}, {"num_cached_tokens": 4096}]
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
