"""A model is served by the torch reference where the fast kernels turn out not to be for its shapes."""

from dataclasses import replace

import pytest
import torch
from support.checkpoints import save_checkpoint

from ondol.engine.memory_profile import CacheMemory
from ondol.engine.messages import EngineConfig
from ondol.engine.runner_start import start_runner
from ondol.engine.warm_up import prefill_batch
from ondol.errors import DeviceUnusable
from ondol.kernels.backend import REFERENCE
from ondol.modeling.kernel_module import use_kernels
from ondol.modeling.loading import load_model

CPU = torch.device("cpu")


class TooLarge(Exception):
    """Stands for what a compiler raises: no RuntimeError."""


def refuse_to_launch(*arguments):
    raise TooLarge("out of resource: shared memory,\nRequired: 172032, Hardware limit: 101376")


FAILING = replace(REFERENCE, name="fast", paged_attention=refuse_to_launch, failures=(TooLarge,))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("llama"), "llama", num_hidden_layers=2)
    return load_model(folder, CPU, "float32")


def start(weights, kernels):
    use_kernels(weights.model.named_modules(), kernels)
    config = EngineConfig(model_path="", max_model_len=64, max_num_seqs=2, block_size=4)
    return start_runner(config, weights, kernels, CPU, CacheMemory(2**20))


def test_kernels_that_fail_for_a_model_are_replaced_and_a_user_is_told(weights):
    started = start(weights, FAILING)
    assert started.kernels is REFERENCE
    (note,) = [note for note in started.notes if "Triton" in note]
    reason = "TooLarge: out of resource: shared memory, Required: 172032, Hardware limit: 101376"
    assert note.endswith(f"the torch reference serves instead, more slowly: {reason}")
    result = started.runner.run(prefill_batch([3], block_size=4, num_blocks=4))
    assert result.token_ids[0] is not None


def test_kernels_that_compute_are_kept(weights):
    kernels = replace(FAILING, paged_attention=REFERENCE.paged_attention)
    started = start(weights, kernels)
    assert started.kernels is kernels
    assert not any("Triton" in note for note in started.notes)


def test_deterministic_kernels_that_fail_are_not_replaced_by_others(weights):
    with pytest.raises(DeviceUnusable, match=r"TooLarge.*start without it, or with --device cpu"):
        start(weights, replace(FAILING, is_deterministic=True))
