"""Mixtures of experts of the Triton kernels against the torch reference, by the interpreter."""

import pytest
import torch
from support.quantized_matrices import random_matrix

from ondol.kernels import operators, quantized
from ondol.kernels.triton.experts import (
    group_rows,
    mixture_of_experts,
    quantized_mixture_of_experts,
    route,
)

# Both end in the middle of a block, WIDTH also of a group.
HIDDEN = 40
WIDTH = 24


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(9)


@pytest.mark.parametrize("normalize", [False, True])
def test_routing_agrees_with_the_reference(normalize):
    logits = torch.randn(5, 12)
    weights, experts = route(logits, 4, normalize)
    expected_weights, expected_experts = operators.route(logits, 4, normalize)
    assert torch.equal(experts, expected_experts)
    torch.testing.assert_close(weights, expected_weights)


def test_equal_logits_choose_the_first_experts():
    weights, experts = route(torch.zeros(2, 6, dtype=torch.bfloat16), 3, normalize=True)
    assert experts.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert weights.dtype == torch.bfloat16
    torch.testing.assert_close(weights.float(), torch.full((2, 3), 1 / 3), atol=2e-3, rtol=0)


# numpy, which interprets, warns of what a GPU computes in silence.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_goes_to_experts_that_are_there(bad, normalize):
    logits = torch.randn(2, 6)
    logits[0] = bad
    weights, experts = route(logits, 4, normalize)
    assert experts[0].tolist() == [0, 1, 2, 3]
    expected_weights, expected_experts = operators.route(logits[1:], 4, normalize)
    assert torch.equal(experts[1:], expected_experts)
    torch.testing.assert_close(weights[1:], expected_weights)


@pytest.mark.parametrize(("num_rows", "num_experts"), [(1, 8), (3, 4), (23, 5), (40, 2)])
def test_grouping_covers_every_pair_once_and_in_order(num_rows, num_experts):
    experts = _random_experts(num_rows, num_experts, top_k=2)
    rows = group_rows(experts, num_experts)
    if rows.tiles is None:
        assert rows.num_tiles == experts.numel()
        return
    seen = []
    for expert, first, count in rows.tiles.tolist():
        if expert >= 0:
            members = rows.pairs[first : first + count].tolist()
            assert 0 < len(members) == count <= 16 * rows.row_tiles
            assert {int(experts.flatten()[pair]) for pair in members} == {expert}
            assert members == sorted(members)
            seen += members
    assert sorted(seen) == list(range(experts.numel()))


# Pairs one by one, grouped in tiles of 16 that are and are not full, and in tiles of 32.
@pytest.mark.parametrize(("num_rows", "num_experts"), [(1, 8), (2, 4), (25, 3), (40, 2)])
def test_plain_experts_agree_with_the_reference(num_rows, num_experts):
    hidden, weights, experts = _routed(num_rows, num_experts)
    gate_up = torch.randn(num_experts, 2 * WIDTH, HIDDEN) / 8
    down = torch.randn(num_experts, HIDDEN, WIDTH) / 8
    output = mixture_of_experts(hidden, weights, experts, gate_up, down)
    expected = operators.mixture_of_experts(hidden, weights, experts, gate_up, down)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


FORMATS = {
    "int8": {"kind": "int8", "group_size": None},
    "int4": {"kind": "int4", "group_size": 32, "has_zeros": True},
    "int4 in orders": {"kind": "int4", "group_size": 32, "is_ordered": True},
    "nf4": {"kind": "nf4", "group_size": 32, "is_nested": True},
    "fp4": {"kind": "fp4", "group_size": 32},
}


# Two rows are pairs one by one, six are grouped.
@pytest.mark.parametrize(
    ("name", "num_rows"), [*((name, 2) for name in FORMATS), ("nf4", 6), ("int4 in orders", 6)]
)
def test_quantized_experts_agree_with_the_reference(name, num_rows):
    gate_up = [random_matrix(part_rows=(WIDTH, WIDTH), num_in=HIDDEN, num_experts=8, **FORMATS[name])]
    _assert_agrees(gate_up, num_rows, FORMATS[name])


def test_gate_and_up_that_could_not_be_fused_agree_with_the_reference():
    shape = FORMATS["int4 in orders"]
    gate_up = [random_matrix(part_rows=(WIDTH,), num_in=HIDDEN, num_experts=8, **shape) for _ in range(2)]
    _assert_agrees(gate_up, 3, shape)


def test_experts_that_fit_no_block_are_computed_all_the_same():
    shape = {"kind": "nf4", "group_size": 16}
    gate_up = [random_matrix(part_rows=(WIDTH, WIDTH), num_in=HIDDEN, num_experts=8, **shape)]
    _assert_agrees(gate_up, 2, shape)


def test_a_row_has_the_same_bits_alone_and_among_others():
    hidden, weights, experts = _routed(19, 5)
    gate_up = torch.randn(5, 2 * WIDTH, HIDDEN)
    down = torch.randn(5, HIDDEN, WIDTH)
    together = mixture_of_experts(hidden, weights, experts, gate_up, down)
    for row in (0, 18):
        alone = slice(row, row + 1)
        output = mixture_of_experts(hidden[alone], weights[alone], experts[alone], gate_up, down)
        assert torch.equal(output[0], together[row])


def test_bfloat16_experts_lose_no_more_than_their_rounding():
    hidden, weights, experts = (tensor.bfloat16() for tensor in _routed(3, 4))
    gate_up = (torch.randn(4, 2 * WIDTH, HIDDEN) / 8).bfloat16()
    down = (torch.randn(4, HIDDEN, WIDTH) / 8).bfloat16()
    output = mixture_of_experts(hidden, weights, experts.long(), gate_up, down)
    wide = (tensor.float() for tensor in (hidden, weights))
    expected = operators.mixture_of_experts(*wide, experts.long(), gate_up.float(), down.float())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [1, 16])
def test_a_layer_of_sixty_experts_agrees_with_the_reference(num_rows):
    """Tens of seconds: hundreds of programs."""
    shape = {"kind": "nf4", "group_size": 64}
    gate_up = [random_matrix(part_rows=(WIDTH, WIDTH), num_in=HIDDEN, num_experts=60, **shape)]
    down = random_matrix(part_rows=(HIDDEN,), num_in=WIDTH, num_experts=60, **shape)
    hidden, weights, experts = _routed(num_rows, 60, top_k=4)
    output = quantized_mixture_of_experts(hidden, weights, experts, gate_up, down)
    expected = quantized.quantized_mixture_of_experts(hidden, weights, experts, gate_up, down)
    torch.testing.assert_close(output, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def _assert_agrees(gate_up, num_rows, shape):
    down = random_matrix(part_rows=(HIDDEN,), num_in=WIDTH, num_experts=8, **shape)
    hidden, weights, experts = _routed(num_rows, 8)
    output = quantized_mixture_of_experts(hidden, weights, experts, gate_up, down)
    expected = quantized.quantized_mixture_of_experts(hidden, weights, experts, gate_up, down)
    torch.testing.assert_close(output, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def _routed(num_rows, num_experts, top_k=2):
    weights = torch.rand(num_rows, top_k)
    return torch.randn(num_rows, HIDDEN), weights, _random_experts(num_rows, num_experts, top_k)


def _random_experts(num_rows, num_experts, top_k):
    return torch.stack([torch.randperm(num_experts)[:top_k] for _ in range(num_rows)])
