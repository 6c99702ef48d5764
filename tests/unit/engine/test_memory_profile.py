"""The KV cache takes what the largest steps leave; the meter is scripted, the steps are a tiny model's."""

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.memory_profile import CacheMemory, LargestSteps, measure_scratch_bytes, plan_cache
from ondol.engine.messages import EngineConfig
from ondol.engine.runner_builder import RunnerBuilder, why_no_graphs
from ondol.errors import DoesNotFit
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")
STEPS = LargestSteps(num_tokens=50, max_num_seqs=3, max_model_len=20, block_size=4)


class ScriptedMeter:
    """Tells given values, one after the other."""

    def __init__(self, *used_bytes: int) -> None:
        self._used_bytes = list(used_bytes)
        self.num_releases = 0

    def used_bytes(self) -> int:
        return self._used_bytes.pop(0)

    def release(self) -> None:
        self.num_releases += 1

    @property
    def is_done(self) -> bool:
        return not self._used_bytes


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("llama"), "llama", num_hidden_layers=2)
    loaded = load_model(folder, CPU, "float32")
    loaded.model.prepare(64)
    return loaded


def make_builder(weights, *, uses_buffers: bool) -> RunnerBuilder:
    return RunnerBuilder(weights, REFERENCE, CPU, torch.float32, 3, uses_buffers=uses_buffers)


def test_the_largest_step_is_full_of_prompts_as_long_as_they_can_be():
    assert STEPS.prompt_lengths == [20, 20, 10]
    assert STEPS.decode_context == 20


def test_scratch_is_what_the_largest_steps_leave_behind(weights):
    meter = ScriptedMeter(1000, 1600)
    assert measure_scratch_bytes(make_builder(weights, uses_buffers=False), STEPS, meter) == 600
    assert meter.is_done
    assert meter.num_releases == 2


def test_memory_that_others_give_back_meanwhile_makes_no_cache_larger_than_was_granted(weights):
    meter = ScriptedMeter(1000, 400)
    assert measure_scratch_bytes(make_builder(weights, uses_buffers=False), STEPS, meter) == 0


def test_graphs_count_with_what_the_first_and_each_further_one_take(weights):
    builder = make_builder(weights, uses_buffers=True)
    # Three sizes of rows and one of contexts: one graph takes 400, two more take 50 each.
    meter = ScriptedMeter(1000, 1600, 1600, 2000, 2100)
    buffer_bytes = (6 * 4 + 4 * 5) * 4 + 4 * 8 + 4 * weights.vocab_size * 4
    assert measure_scratch_bytes(builder, STEPS, meter) == 600 + buffer_bytes + 400 + 2 * 50
    assert meter.is_done


def config(**options) -> EngineConfig:
    bounds = {"max_model_len": 20, "max_num_seqs": 3, "max_num_batched_tokens": 50, "block_size": 4}
    return EngineConfig(model_path="", **bounds | options)


def test_what_was_granted_beside_the_weights_goes_to_the_cache_but_for_the_scratch(weights):
    builder = make_builder(weights, uses_buffers=False)
    block_bytes = builder.kv_shape.bytes_per_token(torch.float32) * 4
    memory = CacheMemory(kv_cache_bytes=6 * block_bytes, spare_bytes=11 * block_bytes)
    plan, scratch_bytes = plan_cache(builder, config(), memory, ScriptedMeter(0, 4 * block_bytes))
    assert (plan.num_blocks, scratch_bytes) == (7, 4 * block_bytes)


def test_a_size_that_was_asked_for_is_not_measured(weights):
    builder = make_builder(weights, uses_buffers=False)
    block_bytes = builder.kv_shape.bytes_per_token(torch.float32) * 4
    plan, scratch_bytes = plan_cache(builder, config(), CacheMemory(6 * block_bytes), ScriptedMeter())
    assert (plan.num_blocks, scratch_bytes) == (6, None)


def test_steps_that_leave_no_room_for_a_request_are_refused(weights):
    builder = make_builder(weights, uses_buffers=False)
    memory = CacheMemory(kv_cache_bytes=1000, spare_bytes=1000)
    with pytest.raises(DoesNotFit):
        plan_cache(builder, config(), memory, ScriptedMeter(0, 5000))


def test_a_user_is_told_why_there_are_no_graphs(weights, tmp_path):
    fast = Kernels("fast")
    assert why_no_graphs(weights, fast) is None
    assert "torch reference" in why_no_graphs(weights, REFERENCE)
    generic = load_model(save_checkpoint(tmp_path, "qwen3"), CPU, "float32")
    assert "may wait for the device" in why_no_graphs(generic, fast)
