import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ondol.engine.messages import LoadPlan, Offload
from ondol.errors import DoesNotFit
from ondol.model_manager.memory_budget import Claim, MemoryBudget, Resident, choose_victims


def plan(weights=50, workspace=10, min_kv=1, request_kv=8, max_kv=64, free=200, offloads=()):
    return LoadPlan(
        device="cpu",
        weights_bytes=weights,
        workspace_bytes=workspace,
        min_kv_bytes=min_kv,
        request_kv_bytes=request_kv,
        max_kv_bytes=max_kv,
        context=1024,
        free_bytes=free,
        total_bytes=free * 2,
        offloads=offloads,
    )


def claim(planned, *, share, reachable=1000):
    return Claim.of("m", planned, share_bytes=share, reachable_bytes=reachable)


def test_a_budget_is_measured_while_nothing_is_loaded():
    budget = MemoryBudget(None, 2)
    budget.observe(100)
    assert (budget.total_bytes, budget.share_bytes) == (100, 50)
    budget.observe(80)
    assert budget.total_bytes == 80


def test_a_measured_budget_counts_what_models_hold_and_shrinks_with_what_others_take():
    budget = MemoryBudget(None, 2)
    budget.observe(100)
    budget.reserve("a", 60)
    budget.observe(40)
    assert budget.total_bytes == 100
    budget.observe(30)
    assert (budget.total_bytes, budget.free_bytes) == (90, 30)
    budget.observe(70)
    assert budget.total_bytes == 90
    budget.release("a")
    budget.observe(100)
    assert budget.total_bytes == 100


def test_a_given_budget_stays():
    budget = MemoryBudget(70, 1)
    budget.observe(1000)
    assert budget.total_bytes == 70


def test_a_model_keeps_to_its_share():
    assert claim(plan(), share=100) == Claim(fixed_bytes=60, min_kv_bytes=8, kv_bytes=40)


def test_a_model_takes_no_more_than_it_can_use():
    assert claim(plan(max_kv=20), share=100).kv_bytes == 20


def test_a_model_too_large_for_its_share_may_have_all_that_is_free():
    large = claim(plan(), share=65)
    assert large.kv_within(free_bytes=100) == 40
    assert large.kv_within(free_bytes=500) == 64


def test_a_context_that_nobody_asked_for_is_shortened_before_the_model_is_refused():
    assert claim(plan(), share=65, reachable=63) == Claim(60, 3, 64)


def test_less_than_the_least_is_refused_with_the_numbers_and_what_to_lower():
    with pytest.raises(DoesNotFit) as refusal:
        claim(plan(weights=50 * 2**20, workspace=2**20, min_kv=2**20), share=1, reachable=51 * 2**20)
    message = str(refusal.value)
    for words in ("50 MiB of weights", "need 52 MiB", "51 MiB of cpu memory", "--max-model-len (1024 now)"):
        assert words in message
    assert "--quantization" in message
    assert "--memory-budget" in message


def test_a_refusal_names_the_smallest_offload_that_would_do():
    offloads = tuple(
        Offload(f"--cpu-offload-gb {place}", 10 * place, 50 - 5 * place) for place in range(1, 8)
    )
    with pytest.raises(DoesNotFit, match=r"As a last resort, slowly: --cpu-offload-gb 3\.$"):
        claim(plan(offloads=offloads), share=1, reachable=50 - 15 + 10 + 1)
    with pytest.raises(DoesNotFit, match=r"--memory-budget\.$"):
        claim(plan(offloads=offloads), share=1, reachable=20)


def victims(residents, *, needed, total=100, places=5, pinned=False):
    budget = MemoryBudget(total, places)
    for resident in residents:
        budget.reserve(resident.name, resident.size_bytes)
    chosen = choose_victims(budget, residents, needed, may_evict_pinned=pinned)
    return None if chosen is None else [resident.name for resident in chosen]


def test_nobody_leaves_while_there_is_room():
    assert victims([Resident("a", 40, 1)], needed=60) == []


def test_the_least_recently_used_leaves_first():
    residents = [Resident("new", 30, 2), Resident("old", 30, 1), Resident("newest", 30, 3)]
    assert victims(residents, needed=40) == ["old"]
    assert victims(residents, needed=70) == ["old", "new"]


def test_the_idle_leave_before_those_in_use():
    residents = [Resident("busy", 50, 1, num_leases=2), Resident("idle", 50, 9)]
    assert victims(residents, needed=50) == ["idle"]
    assert victims(residents, needed=100) == ["idle", "busy"]


def test_pinned_models_leave_for_an_order_only_and_last():
    residents = [Resident("pinned", 50, 1, is_pinned=True), Resident("busy", 50, 9, num_leases=1)]
    assert victims(residents, needed=50) == ["busy"]
    assert victims(residents, needed=60) is None
    assert victims(residents, needed=60, pinned=True) == ["busy", "pinned"]


def test_a_small_one_stays_where_a_large_one_has_to_leave_anyway():
    assert victims([Resident("small", 10, 1), Resident("large", 90, 2)], needed=90) == ["large"]


def test_a_place_is_needed_as_well_as_memory():
    assert victims([Resident("a", 1, 2), Resident("b", 1, 1)], needed=1, places=2) == ["b"]


RESIDENTS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 5), st.integers(0, 2), st.booleans()), max_size=6
).map(lambda rows: [Resident(str(index), *row) for index, row in enumerate(rows)])


@given(RESIDENTS, st.integers(1, 120), st.integers(6, 8), st.booleans())
def test_victims_are_enough_none_too_many_and_never_those_who_may_stay(residents, needed, places, pinned):
    total = 40 + sum(resident.size_bytes for resident in residents)
    budget = MemoryBudget(total, places)
    for resident in residents:
        budget.reserve(resident.name, resident.size_bytes)
    chosen = choose_victims(budget, residents, needed, may_evict_pinned=pinned)
    allowed = [resident for resident in residents if pinned or not resident.is_pinned]

    def fits(leaving):
        freed = sum(resident.size_bytes for resident in leaving)
        return budget.free_bytes + freed >= needed and len(residents) - len(leaving) < places

    if chosen is None:
        assert not fits(allowed)
        return
    assert set(chosen) <= set(allowed)
    assert fits(chosen)
    assert not any(fits([other for other in chosen if other is not one]) for one in chosen)
    if any(resident.num_leases for resident in chosen):
        assert not fits([one for one in allowed if not one.num_leases and not one.is_pinned])


class Device(RuleBasedStateMachine):
    """Models come and go in any order; the budget's invariant holds after every step."""

    loaded = Bundle("loaded")

    def __init__(self):
        super().__init__()
        self.budget = MemoryBudget(100, 3)
        self.residents = {}
        self.names = map(str, itertools.count())
        self.clock = itertools.count()

    @rule(target=loaded, weights=st.integers(1, 110), leases=st.integers(0, 1), pinned=st.booleans())
    def load(self, weights, leases, pinned):
        name = next(self.names)
        planned = plan(weights, workspace=1, min_kv=1, request_kv=5, max_kv=30)
        staying = sum(one.size_bytes for one in self.residents.values() if one.is_pinned)
        try:
            asked = Claim.of(
                name, planned, share_bytes=self.budget.share_bytes, reachable_bytes=100 - staying
            )
        except DoesNotFit:
            assert planned.fixed_bytes + planned.min_kv_bytes > 100 - staying
            return name
        chosen = choose_victims(
            self.budget, self.residents.values(), asked.needed_bytes, may_evict_pinned=False
        )
        if chosen is None:  # pinned models fill all places
            assert sum(one.is_pinned for one in self.residents.values()) == 3
            return name
        for victim in chosen:
            self.leave(victim.name)
        kv_bytes = asked.kv_within(self.budget.free_bytes)
        assert min(planned.request_kv_bytes, asked.min_kv_bytes) <= kv_bytes <= planned.max_kv_bytes
        size = asked.fixed_bytes + kv_bytes
        self.budget.reserve(name, size)
        self.residents[name] = Resident(name, size, next(self.clock), leases, pinned)
        return name

    @rule(name=loaded)
    def leave(self, name):
        self.budget.release(name)
        self.residents.pop(name, None)

    @invariant()
    def the_budget_holds(self):
        sizes = [resident.size_bytes for resident in self.residents.values()]
        assert self.budget.reserved_bytes == sum(sizes) <= 100
        assert len(sizes) <= 3
        assert self.budget.free_bytes == 100 - sum(sizes)


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=40, stateful_step_count=20)
