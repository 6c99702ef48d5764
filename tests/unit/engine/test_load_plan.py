import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.kv_cache import CPU_LIMIT_BYTES
from ondol.engine.load_plan import plan_load
from ondol.engine.messages import EngineConfig
from ondol.errors import DoesNotFit, ModelRefused
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
CONTEXT = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def token_bytes(folder):
    weights = load_model(folder, CPU, "float32")
    return 2 * weights.num_layers * weights.num_kv_heads * weights.head_dim * 4


def plan(folder, on_load=None, **settings):
    config = EngineConfig(model_path=str(folder), dtype="float32", max_num_seqs=4, **settings)
    return plan_load(config, CPU, on_load)


@pytest.mark.parametrize("method", [None, "int8", "nf4"])
def test_planned_weights_are_those_that_a_load_takes(folder, method):
    on_load = None if method is None else OnLoad(method)
    loaded = load_model(folder, CPU, "float32", on_load=on_load)
    assert plan(folder, on_load).weights_bytes == loaded.weights_bytes


def test_the_cache_ranges_from_one_block_to_all_requests_at_the_models_context(folder, token_bytes):
    planned = plan(folder)
    assert planned.context == CONTEXT
    assert planned.min_kv_bytes == 16 * token_bytes
    assert planned.request_kv_bytes == CONTEXT * token_bytes
    assert planned.max_kv_bytes == min(4 * CONTEXT * token_bytes, CPU_LIMIT_BYTES)


def test_a_context_that_was_asked_for_is_the_least_in_whole_blocks(folder, token_bytes):
    planned = plan(folder, max_model_len=100)
    assert planned.context == 100
    assert planned.min_kv_bytes == planned.request_kv_bytes == 112 * token_bytes
    assert planned.max_kv_bytes == 4 * 112 * token_bytes


def test_a_cache_that_was_asked_for_is_all_there_is_to_it(folder, token_bytes):
    planned = plan(folder, kv_cache_bytes=1000 * token_bytes)
    block_aligned = 1000 // 16 * 16 * token_bytes
    assert planned.min_kv_bytes == planned.request_kv_bytes == planned.max_kv_bytes == block_aligned


def test_a_cache_of_8_bits_is_planned_with_its_scales(folder, token_bytes):
    num_heads = token_bytes // (4 * 16)
    planned = plan(folder, kv_cache_dtype="fp8")
    assert planned.request_kv_bytes == CONTEXT * num_heads * (16 + 2)
    assert planned.max_kv_bytes == 4 * planned.request_kv_bytes


def test_a_cache_too_small_for_the_context_is_refused_before_any_weight(folder, token_bytes):
    with pytest.raises(DoesNotFit, match="lower --max-model-len"):
        plan(folder, kv_cache_bytes=50 * token_bytes, max_model_len=100)


def test_a_folder_that_cannot_be_served_is_refused(tmp_path):
    with pytest.raises(ModelRefused):
        plan(tmp_path)


def test_it_tells_what_the_device_has(folder):
    planned = plan(folder)
    assert planned.device == "cpu"
    assert 0 < planned.free_bytes < planned.total_bytes
