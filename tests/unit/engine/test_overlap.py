"""A step that is launched before the tokens of the one before are known changes nobody's tokens."""

import pytest
from support.fake_runner import VOCAB_SIZE, FakeLaunched, FakeRunner, expected_tokens

from ondol.engine.batch import Batch, StepResult
from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.messages import AddRequest, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler

PROMPT = [1, 2, 3]
NUM_BLOCKS, BLOCK_SIZE, BUDGET = 32, 4, 64


class FaultyRunner(FakeRunner):
    """Fails at launches and collections with the given numbers; notes whose tokens it computed."""

    def __init__(self, num_blocks: int = NUM_BLOCKS) -> None:
        super().__init__(num_blocks, BLOCK_SIZE, BUDGET)
        self.failing_launch: int | None = None
        self.failing_sampling: int | None = None
        self.failing_collection: int | None = None
        self.batches: list[list[str]] = []

    def launch(self, batch: Batch) -> FakeLaunched:
        self.batches.append([item.request.request_id for item in batch.scheduled])
        if self.num_steps == self.failing_launch:
            raise RuntimeError("kernel launch failed")
        return FaultyLaunched(self, batch, super().launch(batch).token_ids)


class FaultyLaunched(FakeLaunched):
    def sample(self) -> None:
        if self.runner.num_steps == self.runner.failing_sampling:
            raise RuntimeError("out of memory")
        super().sample()

    def collect(self) -> StepResult:
        result = super().collect()
        if self.number == self.runner.failing_collection:
            raise RuntimeError("device lost")
        return result


def make_core(runner: FaultyRunner | None = None, num_blocks: int = NUM_BLOCKS) -> EngineCore:
    block_manager = BlockManager(num_blocks, BLOCK_SIZE)
    scheduler = Scheduler(block_manager, 8, BUDGET)
    runner = runner or FaultyRunner(num_blocks)
    return EngineCore(runner, scheduler, frozenset(), 100, VOCAB_SIZE, overlaps=True)


def add(core: EngineCore, name: str, prompt: list[int] = PROMPT, **params: object) -> None:
    message = AddRequest(request_id=name, prompt_ids=prompt, params=SamplingParams(**params))
    assert core.add(message) == []


def finish(core: EngineCore) -> dict[str, list[TokenOutput]]:
    outputs: dict[str, list[TokenOutput]] = {}
    while core.has_work:
        for output in core.step():
            outputs.setdefault(output.request_id, []).append(output)
    return outputs


def tokens_of(outputs: list[TokenOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_two_steps_are_out_at_a_time_and_tokens_come_one_step_later():
    runner = FaultyRunner()
    core = make_core(runner)
    add(core, "r", max_tokens=4)
    assert core.step() == []
    whole = expected_tokens(PROMPT, 4)
    assert tokens_of(core.step()) == whole[:1]
    assert tokens_of(finish(core)["r"]) == whole[1:]
    assert runner.most_in_flight == 2


def test_nothing_is_computed_beyond_max_tokens():
    runner = FaultyRunner()
    core = make_core(runner)
    add(core, "r", max_tokens=4)
    finish(core)
    assert runner.num_steps == 4


def test_what_was_launched_after_an_end_token_is_dropped_and_its_blocks_are_free():
    runner = FaultyRunner()
    core = make_core(runner)
    whole = expected_tokens(PROMPT, 6)
    add(core, "r", max_tokens=6, stop_token_ids=(whole[2],))
    outputs = finish(core)["r"]
    assert tokens_of(outputs) == whole[:3]
    assert outputs[-1].finish_reason == "stop"
    assert runner.num_steps == 4
    assert core.stats().num_used_blocks == 0


def test_an_abort_in_flight_frees_at_once_and_leaves_one_result_to_drop():
    core = make_core()
    add(core, "r", max_tokens=20)
    core.step()
    core.abort("r")
    assert core.stats().num_used_blocks == 0
    assert core.has_work
    assert core.step() == []
    assert not core.has_work


def test_the_next_owner_of_blocks_that_are_still_written_gets_right_tokens():
    core = make_core(num_blocks=4)
    add(core, "first", prompt=[7] * 12, max_tokens=4)
    core.step()
    core.step()
    core.abort("first")
    add(core, "second", prompt=[7] * 11 + [9], max_tokens=4)
    assert tokens_of(finish(core)["second"]) == expected_tokens([7] * 11 + [9], 4)


@pytest.mark.parametrize(
    "options",
    [{"presence_penalty": 0.1}, {"frequency_penalty": 0.1}, {"repetition_penalty": 1.1}, {"min_tokens": 4}],
)
def test_a_request_whose_choice_depends_on_its_output_is_launched_ahead_of_it(options):
    runner = FaultyRunner()
    core = make_core(runner)
    add(core, "r", max_tokens=4, **options)
    assert tokens_of(finish(core)["r"]) == expected_tokens(PROMPT, 4)
    assert runner.most_in_flight == 2


def test_a_step_is_launched_before_the_one_before_is_read_and_sampled_afterwards():
    seen: list[str] = []

    class NotingRunner(FaultyRunner):
        def launch(self, batch: Batch) -> FakeLaunched:
            seen.append("launch")
            return NotingLaunched(self, batch, super().launch(batch).token_ids)

    class NotingLaunched(FakeLaunched):
        def sample(self) -> None:
            seen.append("sample")
            super().sample()

        def collect(self) -> StepResult:
            seen.append("collect")
            return super().collect()

    core = make_core(NotingRunner())
    add(core, "r", max_tokens=9)
    for _ in range(3):
        core.step()
    assert seen == ["launch", "sample", "launch", "collect", "sample", "launch", "collect", "sample"]


def test_a_request_is_preempted_only_when_its_tokens_are_known():
    core = make_core(num_blocks=9)
    prompts = {name: [index] * 8 for index, name in enumerate("abc", 1)}
    for name, prompt in prompts.items():
        add(core, name, prompt=prompt, max_tokens=14)
    outputs = finish(core)
    assert core.stats().num_preemptions > 0
    assert {name: tokens_of(outputs[name]) for name in prompts} == {
        name: expected_tokens(prompt, 14) for name, prompt in prompts.items()
    }


@pytest.mark.parametrize(
    ("failing_beat", "reason"),
    [("failing_launch", "kernel launch failed"), ("failing_sampling", "out of memory")],
)
def test_a_step_that_fails_costs_nobody_the_tokens_of_the_step_before(failing_beat, reason):
    runner = FaultyRunner()
    core = make_core(runner)
    add(core, "r", max_tokens=9)
    setattr(runner, failing_beat, 3)
    outputs = finish(core)["r"]
    assert tokens_of(outputs) == expected_tokens(PROMPT, 3)
    assert (outputs[-1].finish_reason, outputs[-1].first_index) == ("error", 3)
    assert reason in outputs[-1].error
    assert core.stats().num_used_blocks == 0
    setattr(runner, failing_beat, None)
    add(core, "next", prompt=[5, 6], max_tokens=3)
    assert tokens_of(finish(core)["next"]) == expected_tokens([5, 6], 3)


def test_a_request_that_ended_in_the_step_before_does_not_fail_with_the_launch():
    runner = FaultyRunner()
    core = make_core(runner)
    whole = expected_tokens(PROMPT, 9)
    add(core, "r", max_tokens=9, stop_token_ids=(whole[2],))
    runner.failing_launch = 3
    outputs = finish(core)["r"]
    assert tokens_of(outputs) == whole[:3]
    assert [output.finish_reason for output in outputs if output.finish_reason] == ["stop"]


def test_a_result_that_cannot_be_read_ends_its_requests_and_not_the_newcomer():
    runner = FaultyRunner()
    core = make_core(runner)
    add(core, "old", max_tokens=9)
    runner.failing_collection = 2
    outputs = [output for _ in range(3) for output in core.step()]
    assert tokens_of(outputs) == expected_tokens(PROMPT, 2)
    add(core, "new", prompt=[5, 6], max_tokens=3)
    ended = finish(core)
    assert runner.batches[3] == ["old", "new"]
    assert [output.finish_reason for output in ended["old"]] == ["error"]
    assert tokens_of(ended["new"]) == expected_tokens([5, 6], 3)


def test_logits_that_are_not_finite_end_a_request_alone_and_leave_nothing_to_find():
    runner = FaultyRunner()
    runner.failing_tokens = frozenset({66})
    core = make_core(runner)
    add(core, "bad", prompt=[66] * 9, max_tokens=5)
    add(core, "good", prompt=[5, 1], max_tokens=5)
    outputs = finish(core)
    assert [output.finish_reason for output in outputs["bad"]] == ["error"]
    assert tokens_of(outputs["good"]) == expected_tokens([5, 1], 5)
    runner.failing_tokens = frozenset()
    add(core, "again", prompt=[66] * 9, max_tokens=2)
    (first, *_) = finish(core)["again"]
    assert first.num_cached_tokens == 0


def test_the_next_turn_finds_the_blocks_of_an_answer():
    core = make_core()
    add(core, "first", max_tokens=9)
    answer = tokens_of(finish(core)["first"])
    turn = [*PROMPT, *answer, 4]
    add(core, "second", prompt=turn, max_tokens=3)
    outputs = finish(core)["second"]
    assert outputs[0].num_cached_tokens == 8
    assert tokens_of(outputs) == expected_tokens(turn, 3)
