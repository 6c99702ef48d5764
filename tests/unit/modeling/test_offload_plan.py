from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ondol.errors import ModelRefused
from ondol.modeling.offload_plan import (
    GIB,
    offload_flag,
    offload_notes,
    plan_offload,
    possible_offloads,
    smallest_offload,
    spread,
)

KIB = 1024


def layers_of(*sizes_kib):
    with torch.device("meta"):
        return [nn.ParameterList([nn.Parameter(torch.empty(size * KIB // 4))]) for size in sizes_kib]


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def test_layers_are_spread_evenly_over_the_depth():
    assert spread(4, 32) == (4, 12, 20, 28)
    assert spread(3, 5) == (0, 2, 4)
    assert spread(5, 5) == (0, 1, 2, 3, 4)


@given(st.integers(1, 100), st.data())
def test_neighbours_are_equally_far_apart_but_for_one_layer(num_layers, data):
    count = data.draw(st.integers(1, num_layers))
    chosen = spread(count, num_layers)
    assert sorted(set(chosen)) == list(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < num_layers
    around = [*chosen, chosen[0] + num_layers]
    distances = {after - before for before, after in pairwise(around)}
    assert max(distances) - min(distances) <= 1


def test_a_plan_counts_the_host_the_buffers_and_what_is_saved():
    plan = plan_offload(layers_of(*[10] * 8), 45 * KIB)
    assert plan.layers == (1, 3, 5, 7)
    assert (plan.host_bytes, plan.buffer_bytes, plan.saved_bytes) == (40 * KIB, 20 * KIB, 20 * KIB)
    assert plan.split(100 * KIB, is_host=False) == (80 * KIB, 40 * KIB)
    assert plan.split(100 * KIB, is_host=True) == (120 * KIB, 0)


@pytest.mark.parametrize("limit_kib", [0, 5, 29])
def test_nothing_is_offloaded_where_buffers_would_take_what_is_saved(limit_kib):
    plan = plan_offload(layers_of(*[10] * 8), limit_kib * KIB)
    assert plan.layers == ()
    assert plan.split(123, is_host=False) == (123, 0)


@given(SIZES, st.integers(0, 600))
def test_a_plan_keeps_to_its_limit_and_a_larger_limit_saves_no_less(sizes, limit_kib):
    layers = layers_of(*sizes)
    plan = plan_offload(layers, limit_kib * KIB)
    assert plan.host_bytes <= limit_kib * KIB
    assert plan.saved_bytes >= 0
    assert plan_offload(layers, (limit_kib + 7) * KIB).saved_bytes >= plan.saved_bytes


@given(SIZES, st.integers(1, 400))
def test_the_smallest_offload_saves_what_is_needed_when_its_size_is_asked_for(sizes, needed_kib):
    layers = layers_of(*sizes)
    plan = smallest_offload(layers, needed_kib * KIB)
    if plan is None:
        assert all(other.saved_bytes < needed_kib * KIB for other in possible_offloads(layers))
    else:
        assert plan_offload(layers, plan.host_bytes).saved_bytes >= needed_kib * KIB
        assert plan_offload(layers, plan.host_bytes - 1).saved_bytes < needed_kib * KIB


def test_the_flag_asks_for_at_least_as_much():
    assert offload_flag(3 * GIB) == "--cpu-offload-gb 3"
    assert offload_flag(3 * GIB + 1) == "--cpu-offload-gb 3.01"


def test_a_model_without_known_layers_is_refused():
    with pytest.raises(ModelRefused, match="cpu-offload-gb"):
        plan_offload([], GIB)
    assert plan_offload([], 0).layers == ()


def test_a_user_hears_what_a_step_copies_or_that_the_limit_is_too_low():
    layers = layers_of(*[1024] * 8)
    assert offload_notes(plan_offload(layers, 0), 0) == ()
    (note,) = offload_notes(plan_offload(layers, 4 * 2**20), 4 * 2**20)
    assert note.startswith("4 of 8 layers stay in host memory: every step copies 4 MiB")
    (note,) = offload_notes(plan_offload(layers, 2**20), 2**20)
    assert "too little" in note
