"""The step's budget follows from what the device was measured to compute."""

import pytest
import torch

from ondol.engine import warm_up
from ondol.engine.batch import StepResult
from ondol.engine.kv_cache import KVPlan
from ondol.engine.warm_up import NUM_PROBE_TOKENS, choose_token_budget

CPU = torch.device("cpu")


class TimedRunner:
    """Takes a given time for each batch, by a clock of its own."""

    def __init__(self, monkeypatch, seconds: float) -> None:
        self.now_s = 0.0
        self.batches = []
        self._seconds = seconds
        monkeypatch.setattr(warm_up.time, "perf_counter", lambda: self.now_s)

    def run(self, batch):
        self.batches.append(batch)
        self.now_s += self._seconds
        return StepResult([1])


@pytest.mark.parametrize(
    ("seconds", "budget"),
    [(0.1, 160), (0.001, 512), (10.0, 8)],
)
def test_the_budget_is_a_quarter_of_a_seconds_work_within_bounds(monkeypatch, seconds, budget):
    runner = TimedRunner(monkeypatch, seconds)
    assert choose_token_budget(runner, CPU, KVPlan(64, 16, 1024, 0), max_num_seqs=8) == budget


def test_the_probe_fits_a_small_pool_and_touches_each_of_its_blocks_once(monkeypatch):
    runner = TimedRunner(monkeypatch, 0.1)
    choose_token_budget(runner, CPU, KVPlan(3, 5, 1024, 0), max_num_seqs=2)
    (item,) = runner.batches[0].scheduled
    assert (item.num_tokens, item.request.block_ids) == (15, [0, 1, 2])
    assert item.num_tokens < NUM_PROBE_TOKENS["cpu"]


def test_no_probe_is_longer_than_the_context(monkeypatch):
    runner = TimedRunner(monkeypatch, 0.1)
    choose_token_budget(runner, CPU, KVPlan(64, 16, 30, 0), max_num_seqs=8)
    assert [item.num_tokens for item in runner.batches[0].scheduled] == [30, 30, 4]
    choose_token_budget(runner, CPU, KVPlan(64, 16, 30, 0), max_num_seqs=2)
    assert [item.num_tokens for item in runner.batches[-1].scheduled] == [30, 30]
