"""Plans are deterministic, never repeat a prompt by accident, and have the stated sizes."""

import pytest

from ondol.bench.plan import WORKLOADS, Plan, PlannedRequest, Sizes

SIZES = Sizes(num_requests=12, concurrency=3, input_tokens=100, output_tokens=40)


def requests_of(plan: Plan) -> list[PlannedRequest]:
    return [*plan.background, *(request for phase in plan.phases for request in phase.requests)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_equal_seeds_give_equal_plans(name):
    workload = WORKLOADS[name]
    assert workload.plan(SIZES, 7, 1) == workload.plan(SIZES, 7, 1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_prompt_occurs_twice_over_repeats_and_seeds(name):
    plans = [WORKLOADS[name].plan(SIZES, seed, repeat) for seed in range(3) for repeat in range(3)]
    keys = [request.key for plan in plans for request in requests_of(plan)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_plan_of_one_request_can_be_made(name):
    assert requests_of(WORKLOADS[name].plan(Sizes(1, 1, 1, 1), 0, 0))


def test_concurrent_chats_have_mixed_lengths_around_the_given_ones():
    requests = requests_of(WORKLOADS["concurrent"].plan(SIZES, 0, 0))
    assert sum(request.num_input_tokens for request in requests) == 12 * 100
    assert sum(request.num_output_tokens for request in requests) == 12 * 40
    assert len({(r.num_input_tokens, r.num_output_tokens) for r in requests}) == 12


def test_the_shared_prefix_is_paid_for_once_and_alone():
    plan = WORKLOADS["shared-prefix"].plan(SIZES, 0, 0)
    assert [(phase.concurrency, len(phase.requests)) for phase in plan.phases] == [(1, 1), (3, 11)]
    assert len({(r.prefix_key, r.num_prefix_tokens) for r in requests_of(plan)}) == 1


def test_throughput_is_a_thousand_in_and_a_thousand_out():
    sizes = WORKLOADS["throughput"].sizes
    assert (sizes.input_tokens, sizes.output_tokens) == (1000, 1000)


def test_mixed_runs_its_decoders_behind_arrivals_that_come_one_by_one():
    plan = WORKLOADS["mixed"].plan(SIZES, 0, 0)
    assert [request.role for request in plan.background] == ["decoder"] * 3
    assert [phase.concurrency for phase in plan.phases] == [1]
