"""Laws of the scheduler: nothing leaks, nothing is shared wrongly, every request ends as if alone."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.fake_runner import VOCAB_SIZE, FakeRunner, expected_tokens

from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore
from ondol.engine.messages import AddRequest
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler


def make_engine(
    num_blocks: int,
    block_size: int,
    max_num_seqs: int,
    budget: int,
    *,
    prefix_caching: bool = True,
    overlaps: bool = False,
) -> tuple[EngineCore, Scheduler, FakeRunner]:
    block_manager = BlockManager(num_blocks, block_size, prefix_caching)
    scheduler = Scheduler(block_manager, max_num_seqs, budget)
    runner = FakeRunner(num_blocks, block_size, budget)
    core = EngineCore(
        runner,
        scheduler,
        frozenset({0}),
        num_blocks * block_size,
        VOCAB_SIZE,
        overlaps=overlaps,
    )
    return core, scheduler, runner


def add(
    core: EngineCore, request_id: str, prompt_ids: list[int], max_tokens: int, *, priority: int = 0
) -> None:
    params = SamplingParams(max_tokens=max_tokens)
    message = AddRequest(request_id=request_id, prompt_ids=prompt_ids, params=params, priority=priority)
    assert core.add(message) == []


def names(requests: list[Request]) -> list[str]:
    return [request.request_id for request in requests]


def collect(core: EngineCore, max_steps: int = 10_000) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    for _ in range(max_steps):
        if not core.has_work:
            return tokens
        for output in core.step():
            tokens.setdefault(output.request_id, []).extend(output.token_ids)
    raise AssertionError("requests did not end")


def test_decodes_come_before_chunks_of_a_long_prompt():
    core, scheduler, _ = make_engine(100, 4, 8, budget=6)
    add(core, "short", [5, 6], max_tokens=10)
    core.step()
    add(core, "long", list(range(1, 41)), max_tokens=2)
    batch = scheduler.schedule()
    assert [(item.request.request_id, item.num_tokens) for item in batch.scheduled] == [
        ("short", 1),
        ("long", 5),
    ]


def test_a_long_prompt_is_computed_in_chunks_of_the_budget_and_answered_right():
    core, _, runner = make_engine(100, 4, 8, budget=6)
    prompt = [token % 90 + 1 for token in range(40)]
    add(core, "long", prompt, max_tokens=3)
    assert collect(core) == {"long": expected_tokens(prompt, 3)}
    assert runner.num_steps == 7 + 2  # six full chunks and a rest that samples, then two decodes


def test_requests_wait_for_their_turn_when_the_running_batch_is_full():
    core, scheduler, _ = make_engine(100, 4, 2, budget=50)
    for name in "abc":
        add(core, name, [1, 2, 3], max_tokens=4)
    core.step()
    assert [request.request_id for request in scheduler.running] == ["a", "b"]
    assert [request.request_id for request in scheduler.waiting] == ["c"]
    assert set(collect(core)) == {"a", "b", "c"}


def test_the_last_admitted_request_is_preempted_and_resumes_with_the_same_tokens():
    core, scheduler, _ = make_engine(6, 4, 8, budget=50, prefix_caching=False)
    prompts = {"first": [1, 2, 3, 4, 5, 6, 7], "second": [8, 9, 10, 11, 12, 13, 14]}
    for name, prompt in prompts.items():
        add(core, name, prompt, max_tokens=14)
    tokens = collect(core)
    assert scheduler.num_preemptions > 0
    assert tokens == {name: expected_tokens(prompt, 14) for name, prompt in prompts.items()}


def test_those_who_wait_are_admitted_by_priority_and_within_one_by_arrival():
    core, scheduler, _ = make_engine(100, 4, 1, budget=50)
    add(core, "runs", [1, 2, 3], max_tokens=2, priority=9)
    core.step()
    for name, priority in {"usual": 0, "later": 5, "usual too": 0, "urgent": -1, "later too": 5}.items():
        add(core, name, [1, 2, 3], max_tokens=2, priority=priority)
    started: list[str] = []
    while core.has_work:
        started += [name for name in names(scheduler.running) if name not in started]
        core.step()
    assert started == ["runs", "urgent", "usual", "usual too", "later", "later too"]


def test_an_urgent_request_takes_nobodys_place():
    core, scheduler, _ = make_engine(100, 4, 1, budget=50)
    add(core, "runs", [1, 2, 3], max_tokens=9, priority=1)
    core.step()
    add(core, "urgent", [1, 2, 3], max_tokens=9, priority=-1)
    core.step()
    assert (names(scheduler.running), scheduler.num_preemptions) == (["runs"], 0)


def test_the_least_urgent_request_is_preempted_though_it_is_the_oldest():
    core, scheduler, _ = make_engine(6, 4, 8, budget=50, prefix_caching=False)
    prompts = {"old": [1, 2, 3, 4, 5, 6, 7], "urgent": [8, 9, 10, 11, 12, 13, 14]}
    add(core, "old", prompts["old"], max_tokens=14, priority=3)
    tokens = {name: [] for name in prompts}
    while not scheduler.num_preemptions:
        for output in core.step():
            tokens[output.request_id] += output.token_ids
        if names(scheduler.running) == ["old"]:
            add(core, "urgent", prompts["urgent"], max_tokens=14, priority=-3)
    assert (names(scheduler.running), names(scheduler.waiting)) == (["urgent"], ["old"])
    for name, rest in collect(core).items():
        tokens[name] += rest
    assert tokens == {name: expected_tokens(prompt, 14) for name, prompt in prompts.items()}


def test_a_preempted_request_waits_before_those_of_its_priority_and_behind_more_urgent_ones():
    core, scheduler, _ = make_engine(6, 4, 2, budget=50, prefix_caching=False)
    for name in ("stays", "goes"):
        add(core, name, [1, 2, 3, 4, 5, 6, 7], max_tokens=14)
    core.step()
    for name, priority in {"urgent": -1, "usual": 0, "later": 1}.items():
        add(core, name, list(range(1, 10)), max_tokens=2, priority=priority)
    while not scheduler.num_preemptions:
        core.step()
    assert names(scheduler.running) == ["stays"]
    assert names(scheduler.waiting) == ["urgent", "goes", "usual", "later"]


def test_a_long_prompt_yields_the_step_to_a_more_urgent_one():
    core, scheduler, _ = make_engine(100, 4, 8, budget=6)
    add(core, "long", list(range(1, 41)), max_tokens=2)
    core.step()
    add(core, "equal", list(range(1, 41)), max_tokens=2)
    add(core, "urgent", list(range(41, 50)), max_tokens=2, priority=-1)
    steps = [
        [(item.request.request_id, item.num_tokens) for item in scheduler.schedule().scheduled]
        for _ in range(2)
    ]
    assert steps == [[("urgent", 6)], [("urgent", 3), ("long", 3)]]


def test_a_request_whose_logits_are_not_finite_ends_alone():
    core, _, runner = make_engine(100, 4, 8, budget=50)
    runner.failing_tokens = frozenset({66})
    add(core, "bad", [66, 1], max_tokens=5)
    add(core, "good", [5, 1], max_tokens=5)
    outputs = [output for _ in range(5) for output in core.step()]
    assert [o.finish_reason for o in outputs if o.request_id == "bad"] == ["error"]
    good = [token for o in outputs if o.request_id == "good" for token in o.token_ids]
    assert good == expected_tokens([5, 1], 5)
    assert core.stats().num_used_blocks == 0


def test_a_resumed_request_continues_after_the_tokens_that_it_brings():
    core, _, _ = make_engine(100, 4, 8, budget=50)
    whole = expected_tokens([1, 2, 3], 9)
    core.add(
        AddRequest(
            request_id="r", prompt_ids=[1, 2, 3], output_ids=whole[:4], params=SamplingParams(max_tokens=9)
        )
    )
    outputs = core.step()
    assert outputs[0].first_index == 4
    assert outputs[0].token_ids + collect(core)["r"] == whole[4:]


def turn(request: Request) -> tuple[int, int]:
    """(priority, number of its arrival) of a request that is named by its number."""
    return request.priority, int(request.request_id[1:])


class EngineMachine(RuleBasedStateMachine):
    """Random arrivals, aborts and steps against a pool that is mostly too small."""

    @initialize(
        num_blocks=st.integers(4, 24),
        block_size=st.integers(1, 5),
        max_num_seqs=st.integers(1, 6),
        budget=st.integers(1, 20),
        prefix_caching=st.booleans(),
        overlaps=st.booleans(),
    )
    def start(self, num_blocks, block_size, max_num_seqs, budget, prefix_caching, overlaps):
        self.core, self.scheduler, self.runner = make_engine(
            num_blocks, block_size, max_num_seqs, budget, prefix_caching=prefix_caching, overlaps=overlaps
        )
        self.capacity = num_blocks * block_size
        self.expected: dict[str, list[int]] = {}
        self.received: dict[str, list[int]] = {}
        self.num_added = 0

    # Few different tokens and a shared beginning make equal prefixes likely.
    @rule(
        head=st.integers(0, 12),
        tail=st.lists(st.integers(1, 3), max_size=8),
        max_tokens=st.integers(1, 12),
        end_index=st.none() | st.integers(0, 11),
        min_tokens=st.integers(0, 3),
        reads_output=st.booleans(),
        priority=st.integers(-1, 1),
    )
    def arrive(self, head, tail, max_tokens, end_index, min_tokens, reads_output, priority):
        prompt = [*([2, 1, 3] * 4)[:head], *tail, 1]
        name = f"r{self.num_added}"
        self.num_added += 1
        expected = expected_tokens(prompt, max_tokens)
        end_tokens = [] if end_index is None else expected[end_index : end_index + 1]
        # The fake model ignores penalties, but tells whether what they count is known.
        params = SamplingParams(
            max_tokens=max_tokens,
            stop_token_ids=tuple(end_tokens),
            min_tokens=min_tokens,
            presence_penalty=0.5 if reads_output else 0.0,
        )
        refused = self.core.add(
            AddRequest(request_id=name, prompt_ids=prompt, params=params, priority=priority)
        )
        if len(prompt) + max_tokens > self.capacity:
            assert [output.finish_reason for output in refused] == ["error"]
        else:
            ends = (
                index for index, token in enumerate(expected) if token in end_tokens and index >= min_tokens
            )
            self.expected[name] = expected[: next(ends, max_tokens - 1) + 1]
            self.received[name] = []

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def abort(self, data):
        name = data.draw(st.sampled_from(sorted(self.expected)))
        self.core.abort(name)
        del self.expected[name]

    @rule(num_steps=st.integers(1, 8))
    def step(self, num_steps):
        for _ in range(num_steps):
            before = self.arrived_but_never_ran(), set(self.scheduler.running)
            outputs = self.core.step()
            self.nobody_was_passed_over(*before)
            for output in outputs:
                assert output.request_id in self.expected, "an aborted or ended request got a token"
                received = self.received[output.request_id]
                assert output.first_index == len(received)
                received.extend(output.token_ids)
                assert received == self.expected[output.request_id][: len(received)]
                if output.finish_reason is not None:
                    assert received == self.expected.pop(output.request_id)

    def arrived_but_never_ran(self) -> set[Request]:
        return {request for request in self.scheduler.waiting if request.started_s is None}

    def nobody_was_passed_over(self, waited: set[Request], ran: set[Request]) -> None:
        """`waited` had never run before the last step, `ran` ran."""
        still_waiting = self.arrived_but_never_ran()
        admitted = [turn(request) for request in waited - still_waiting]
        assert max(admitted, default=(-9, 0)) < min(map(turn, still_waiting), default=(9, 0))
        preempted = [request.priority for request in ran.intersection(self.scheduler.waiting)]
        running = [request.priority for request in self.scheduler.running]
        assert max(running, default=-9) <= min(preempted, default=9)

    @invariant()
    def both_lines_are_in_order(self):
        if not hasattr(self, "core"):
            return
        running, waiting = self.scheduler.running, self.scheduler.waiting
        assert running == sorted(running, key=lambda request: request.priority)
        assert waiting == sorted(waiting, key=lambda request: (request.priority, request.started_s is None))
        never_ran = [turn(request) for request in waiting if request.started_s is None]
        assert never_ran == sorted(never_ran)

    @invariant()
    def every_block_is_free_or_referenced_as_often_as_it_is_used(self):
        if not hasattr(self, "core"):
            return
        manager = self.scheduler.block_manager
        uses = Counter(block for request in self.scheduler.running for block in request.block_ids)
        assert {block: manager._ref_counts[block] for block in uses} == dict(uses)
        assert sum(manager._ref_counts) == uses.total()
        assert manager.num_free_blocks == manager.num_blocks - len(uses)
        assert all(not request.block_ids for request in self.scheduler.waiting)

    @invariant()
    def a_shared_block_is_full_in_every_request_that_shares_it(self):
        if not hasattr(self, "core"):
            return
        manager = self.scheduler.block_manager
        for request in self.scheduler.running:
            for index, block in enumerate(request.block_ids):
                if manager._ref_counts[block] > 1:
                    assert (index + 1) * manager.block_size <= request.num_computed_tokens

    @invariant()
    def no_request_is_in_two_places(self):
        if hasattr(self, "core"):
            open_ids = [r.request_id for r in (*self.scheduler.running, *self.scheduler.waiting)]
            assert sorted(open_ids) == sorted(self.expected)

    @invariant()
    def what_is_launched_is_collected_in_time(self):
        if hasattr(self, "core"):
            assert self.runner.most_in_flight <= 2
            assert self.runner.num_steps - self.runner.num_collected <= 1

    def teardown(self):
        if not hasattr(self, "core"):
            return
        for _ in range(5_000):
            if not self.core.has_work:
                break
            self.step(1)
        assert not self.expected, "every request ends"
        assert self.core.stats().num_used_blocks == 0
        assert self.runner.num_steps == self.runner.num_collected


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_step_asks_for_the_logits_of_a_bounded_number_of_prompt_tokens():
    core, scheduler, _ = make_engine(100, 4, 8, budget=30)
    scheduler.max_prompt_logits = 7
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    for name in ("first", "second"):
        core.add(AddRequest(request_id=name, prompt_ids=list(range(1, 6)), params=params))
    add(core, "plain", list(range(1, 11)), max_tokens=1)
    batch = scheduler.schedule()
    assert [(item.request.request_id, item.num_tokens) for item in batch.scheduled] == [
        ("first", 5),
        ("second", 2),
        ("plain", 10),
    ]


def test_a_request_of_no_tokens_computes_its_prompt_and_ends():
    core, scheduler, runner = make_engine(100, 4, 8, budget=6)
    add(core, "prompt", list(range(1, 15)), max_tokens=0)
    outputs = [output for _ in range(3) for output in core.step()]
    assert [(output.token_ids, output.finish_reason) for output in outputs] == [([], "length")]
    assert (runner.num_steps, scheduler.block_manager.num_used_blocks) == (3, 0)
    add(core, "after", list(range(1, 15)), max_tokens=1)
    assert core.step()[0].num_cached_tokens == 12


def test_a_request_tells_how_long_its_prompt_took_with_its_first_token_alone():
    core, _, _ = make_engine(100, 4, 8, budget=6)
    add(core, "r", [5, 6, 7], max_tokens=3)
    seconds = [output.prefill_s for _ in range(3) for output in core.step()]
    assert seconds[0] >= 0
    assert seconds[1:] == [None, None]


def test_requests_that_wait_are_told_their_places_in_the_order_of_admission():
    core, _, _ = make_engine(100, 4, 1, budget=6)
    for name, priority in {"later": 1, "first": -1, "next": 0, "then": 0}.items():
        add(core, name, [5, 6, 7], max_tokens=3, priority=priority)
    places = {
        output.request_id: output.queue_position
        for output in core.step()
        if output.queue_position is not None
    }
    assert places == {"next": 1, "then": 2, "later": 3}
