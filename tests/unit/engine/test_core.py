"""The engine's beats from outside: what ends a request, what is refused, what an abort frees."""

import pytest
from support.fake_runner import VOCAB_SIZE, FakeLaunched, FakeRunner, expected_tokens

from ondol.engine.batch import Batch
from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.messages import AddRequest, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler

PROMPT = [1, 2, 3]


def make_core(
    end_token_ids: frozenset[int] = frozenset(),
    runner: FakeRunner | None = None,
    *,
    overlaps: bool = False,
) -> EngineCore:
    block_manager = BlockManager(32, 4)
    scheduler = Scheduler(block_manager, 8, 64)
    runner = runner or FakeRunner(32, 4, 64)
    return EngineCore(runner, scheduler, end_token_ids, 100, VOCAB_SIZE, overlaps=overlaps)


def run(core: EngineCore, params: SamplingParams, prompt_ids: list[int] = PROMPT) -> list[TokenOutput]:
    outputs = core.add(AddRequest(request_id="r", prompt_ids=prompt_ids, params=params))
    while core.has_work:
        outputs += core.step()
    return outputs


def tokens_of(outputs: list[TokenOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_a_request_ends_at_max_tokens_with_length():
    outputs = run(make_core(), SamplingParams(max_tokens=5))
    assert tokens_of(outputs) == expected_tokens(PROMPT, 5)
    assert [output.finish_reason for output in outputs] == [None] * 4 + ["length"]


def test_every_end_token_of_the_model_ends_a_request_with_stop():
    whole = expected_tokens(PROMPT, 6)
    for end_token in (whole[2], whole[4]):
        outputs = run(make_core(frozenset({end_token})), SamplingParams(max_tokens=6))
        assert tokens_of(outputs) == whole[: whole.index(end_token) + 1]
        assert (outputs[-1].finish_reason, outputs[-1].stop_token_id) == ("stop", end_token)


def test_ignore_eos_generates_through_end_tokens_but_not_through_own_stop_tokens():
    whole = expected_tokens(PROMPT, 6)
    core = make_core(frozenset({whole[1]}))
    outputs = run(core, SamplingParams(max_tokens=6, ignore_eos=True, stop_token_ids=(whole[3],)))
    assert tokens_of(outputs) == whole[:4]
    assert outputs[-1].stop_token_id == whole[3]


def test_an_end_token_within_min_tokens_does_not_end_a_request():
    whole = expected_tokens(PROMPT, 6)
    outputs = run(make_core(frozenset({whole[1]})), SamplingParams(max_tokens=6, min_tokens=3))
    assert tokens_of(outputs) == whole


@pytest.mark.parametrize(("num_prompt_tokens", "max_tokens"), [(0, 5), (90, 11), (101, 1)])
def test_a_request_that_can_never_run_is_refused_at_once(num_prompt_tokens, max_tokens):
    core = make_core()
    outputs = run(core, SamplingParams(max_tokens=max_tokens), [1] * num_prompt_tokens)
    assert [output.finish_reason for output in outputs] == ["error"]
    assert "does not fit" in outputs[0].error
    assert not core.has_work


def test_an_abort_frees_every_block_before_the_next_step():
    core = make_core()
    core.add(AddRequest(request_id="r", prompt_ids=PROMPT * 5, params=SamplingParams(max_tokens=50)))
    core.step()
    assert core.stats().num_used_blocks > 0
    core.abort("r")
    assert core.stats().num_used_blocks == 0
    assert core.stats().num_running == 0
    assert core.step() == []


def test_aborting_what_is_waiting_or_unknown_is_fine():
    core = make_core()
    core.add(AddRequest(request_id="r", prompt_ids=PROMPT, params=SamplingParams(max_tokens=5)))
    core.abort("nobody")
    core.abort("r")
    assert not core.has_work


class BrokenRunner(FakeRunner):
    def launch(self, batch: Batch) -> FakeLaunched:
        if any(item.request.request_id == "r" for item in batch.scheduled):
            raise RuntimeError("kernel launch failed")
        return super().launch(batch)


def test_an_exception_in_a_step_ends_that_steps_requests_with_its_reason_and_nobody_else():
    core = make_core(runner=BrokenRunner(32, 4, 64))
    outputs = run(core, SamplingParams(max_tokens=5))
    assert [output.finish_reason for output in outputs] == ["error"]
    assert "kernel launch failed" in outputs[0].error
    assert core.stats().num_used_blocks == 0
    core.add(AddRequest(request_id="next", prompt_ids=PROMPT, params=SamplingParams(max_tokens=3)))
    outputs = []
    while core.has_work:
        outputs += core.step()
    assert tokens_of(outputs) == expected_tokens(PROMPT, 3)


def test_stats_count_prefix_hits_in_tokens():
    core = make_core()
    prompt = list(range(1, 14))
    run(core, SamplingParams(max_tokens=2), prompt)
    outputs = run(core, SamplingParams(max_tokens=2), prompt)
    assert core.stats().prefix_query_tokens == 26
    assert core.stats().prefix_hit_tokens == 12
    assert outputs[0].num_cached_tokens == 12


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt_ids": [1, VOCAB_SIZE]},
        {"prompt_ids": [-1]},
        {"params": SamplingParams(max_tokens=3, stop_token_ids=(VOCAB_SIZE,))},
        {"params": SamplingParams(max_tokens=3, logit_bias=((VOCAB_SIZE + 5, 1.0),))},
    ],
)
def test_a_token_id_beyond_the_vocabulary_is_refused_and_harms_no_neighbour(bad):
    core = make_core(end_token_ids=frozenset({VOCAB_SIZE + 1}))
    good = AddRequest(request_id="good", prompt_ids=PROMPT, params=SamplingParams(max_tokens=3, min_tokens=2))
    core.add(good)
    message = {"request_id": "r", "prompt_ids": PROMPT, "params": SamplingParams(max_tokens=3)} | bad
    (refusal,) = core.add(AddRequest(**message))
    assert (refusal.finish_reason, refusal.request_id) == ("error", "r")
    assert "is not among the model's" in refusal.error
    outputs = []
    while core.has_work:
        outputs += core.step()
    assert tokens_of(outputs) == expected_tokens(PROMPT, 3)
