"""Triton's sampling against the torch reference, token for token."""

import math
import random

import pytest
import torch
from support.sampling_rows import sampling_rows

from ondol.kernels.backend import REFERENCE
from ondol.kernels.triton import sampling
from ondol.kernels.triton.backend import TRITON

NUM_ROWS = 6
TEMPERATURES = (0.0, 1e-6, 0.3, 0.7, 1.0, 2.0, 1e4)
TOP_KS = (0, 0, 1, 5, 40, 2000)
TOP_PS = (1.0, 1.0, 0.0, 1e-9, 0.05, 0.5, 0.9, 0.999)
MIN_PS = (0.0, 0.0, 0.05, 0.5, 1.0)


def any_row(draw):
    """Parameters of a row; seeds of all 64 bits."""
    return {
        "temperature": draw.choice(TEMPERATURES),
        "top_k": draw.choice(TOP_KS),
        "top_p": draw.choice(TOP_PS),
        "min_p": draw.choice(MIN_PS),
        "seed": draw.getrandbits(64) - 2**63,
        "choice": draw.randrange(3),
        "position": draw.randrange(100_000),
    }


def random_logits(num_rows, vocab_size, seed=0, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, vocab_size, generator=generator) * spread


def assert_equal_to_the_reference(logits, rows):
    before = logits.clone()
    (found, found_finite), (expected, expected_finite) = (
        kernels.sample_tokens(logits, rows) for kernels in (TRITON, REFERENCE)
    )
    assert found_finite.tolist() == expected_finite.tolist()
    assert found.tolist() == expected.tolist()
    assert torch.equal(logits.view(torch.int32), before.view(torch.int32)), "logits are not changed"


def spoiled(logits, kind):
    """Logits as models and grammars make them, and as they should not be."""
    if kind == "tied":
        logits = logits.round()
    elif kind == "flat":
        logits = logits * 1e-3
    elif kind == "masked":
        logits[:, torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(1)) < 0.9] = -math.inf
    elif kind == "nearly all masked":
        logits[:, :-3] = -math.inf
    elif kind == "broken":
        logits[0, 3], logits[2, -1], logits[4] = math.nan, math.inf, -math.inf
    return logits


# Each way of choosing once; the last two search for a nucleus among what top-k leaves.
ROWS = [
    {"temperature": 0.0, "top_k": 5, "top_p": 0.5},
    {"temperature": 1.3, "seed": -5},
    {"top_k": 1},
    {"temperature": 2.0, "top_k": 300, "seed": -(2**63)},
    {"top_p": 0.9, "seed": 2**63 - 1, "choice": 3},
    {"top_p": 1e-9},
    {"min_p": 0.1, "position": 99},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "seed": 4},
    {"temperature": 1e4, "top_k": 1200, "top_p": 0.999, "min_p": 0.01, "seed": 5},
]


def test_tokens_of_every_kind_of_row_equal_those_of_the_reference():
    assert_equal_to_the_reference(random_logits(len(ROWS), 1537), sampling_rows(ROWS))


def test_tied_tokens_stay_or_go_together():
    logits = spoiled(random_logits(2, 1000), "tied")
    assert_equal_to_the_reference(logits, sampling_rows([{"top_k": 9, "seed": 1}, {"top_p": 0.5}]))


def test_rows_that_are_not_finite_are_flagged_and_leave_the_others_alone():
    rows = sampling_rows([{"temperature": 0.0}, {}, {"top_p": 0.5}, {"min_p": 0.5}, {}])
    assert_equal_to_the_reference(spoiled(random_logits(5, 1000), "broken"), rows)


def test_candidates_of_more_than_one_block_are_searched():
    logits = random_logits(1, sampling.BLOCK + 1000, spread=1e-3)
    assert_equal_to_the_reference(logits, sampling_rows([{"top_k": 4500, "top_p": 0.97}]))


def test_a_row_gets_the_same_token_alone_and_in_any_batch():
    logits = random_logits(3, 1200)
    rows = [ROWS[7], {"temperature": 0.0}, {"seed": 8}]
    together, _ = TRITON.sample_tokens(logits, sampling_rows(rows))
    for row in (0, 2):
        alone, _ = TRITON.sample_tokens(logits[row : row + 1], sampling_rows(rows[row : row + 1]))
        assert alone.item() == together[row]


def test_no_rows_give_no_tokens():
    token_ids, is_finite = TRITON.sample_tokens(torch.empty(0, 1000), sampling_rows([]))
    assert token_ids.shape == is_finite.shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tied", "flat", "masked", "nearly all masked", "broken"])
@pytest.mark.parametrize("vocab_size", [7, 1000, 5000])
def test_tokens_of_any_rows_equal_those_of_the_reference(vocab_size, kind):
    """Slow: a search takes thirty passes, each of them interpreted."""
    draw = random.Random(f"{vocab_size} {kind}")
    rows = sampling_rows([any_row(draw) for _ in range(NUM_ROWS)])
    assert_equal_to_the_reference(spoiled(random_logits(NUM_ROWS, vocab_size), kind), rows)
