"""The engine over layers that stay in host memory."""

import pytest
import torch
from support.checkpoints import save_checkpoint
from support.engine import build_core, greedy, run_to_end
from support.packers import GPTQ, pack_checkpoint

from ondol.engine.kv_cache import host_free_bytes
from ondol.engine.load_plan import check_host_memory, offloads_within, plan_load
from ondol.engine.messages import EngineConfig, Offload
from ondol.errors import DoesNotFit
from ondol.modeling.loading import draw_model, load_model
from ondol.modeling.quantization.on_load import OnLoad

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], list(range(40, 58)), list(range(100, 109)), [9]]
EVERYTHING = 2**30


def answers(folder, **options):
    core = build_core(folder, **options)
    return run_to_end(core, {str(index): (prompt, greedy(10)) for index, prompt in enumerate(PROMPTS)})


@pytest.mark.parametrize(
    ("family", "on_load"), [("llama", None), ("qwen2", OnLoad("nf4")), ("qwen2_moe", OnLoad("int8"))], ids=str
)
def test_tokens_are_those_of_a_model_that_is_all_on_the_device(tmp_path, family, on_load):
    folder = save_checkpoint(tmp_path, family)
    expected = answers(folder, on_load=on_load)
    assert answers(folder, on_load=on_load, offload_bytes=EVERYTHING) == expected
    scarce = {"num_blocks": 14, "max_num_batched_tokens": 8, "overlaps": True}
    assert answers(folder, on_load=on_load, offload_bytes=EVERYTHING, **scarce) == expected


def test_tokens_of_a_quantized_mixture_of_experts_are_the_same(tmp_path):
    packed, _ = pack_checkpoint(tmp_path, "qwen2_moe", GPTQ(group_size=32))
    assert answers(packed, offload_bytes=EVERYTHING) == answers(packed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("offload"), "llama", num_hidden_layers=6)


def plan(folder, **settings):
    return plan_load(EngineConfig(model_path=str(folder), dtype="float32", **settings), CPU, None)


def test_planned_weights_are_those_that_a_load_takes_buffers_included(folder):
    loaded = load_model(folder, CPU, "float32", offload_bytes=EVERYTHING)
    planned = plan(folder, offload_bytes=EVERYTHING)
    assert planned.weights_bytes == loaded.weights_bytes > plan(folder).weights_bytes
    assert planned.host_bytes == loaded.host_weights_bytes == 0


def test_a_cpu_has_nothing_to_offload_to(folder):
    assert plan(folder).offloads == ()


def test_what_might_be_offloaded_is_told_from_the_smallest_on_within_the_hosts_memory(folder):
    blueprint = draw_model(folder, CPU, "float32")
    weights_bytes = plan(folder).weights_bytes
    offloads = list(offloads_within(blueprint, EVERYTHING))
    layer_bytes = offloads[0].host_bytes // 3
    assert offloads == [
        Offload("--cpu-offload-gb 0.01", count * layer_bytes, weights_bytes - (count - 2) * layer_bytes)
        for count in (3, 4, 5, 6)
    ]
    assert list(offloads_within(blueprint, 4 * layer_bytes)) == offloads[:2]


def test_host_memory_that_is_not_there_is_refused_with_what_can_be_had():
    check_host_memory(host_free_bytes() // 2, host_free_bytes())
    with pytest.raises(DoesNotFit, match=r"10240 MiB .* 5120 MiB can be had .* --cpu-offload-gb 5\."):
        check_host_memory(10 * 2**30, 5 * 2**30)
