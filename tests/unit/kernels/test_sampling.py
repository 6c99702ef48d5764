"""The torch reference of sampling; what the engine adds is in tests/unit/engine/test_sampler.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampling_rows import sampling_rows
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ondol.kernels.sampling import NUCLEUS_CANDIDATES, sample_tokens, truncate

VOCAB_SIZE = 40


def random_logits(num_rows, vocab_size=VOCAB_SIZE, seed=0):
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def kept(row, **params):
    """Ids that truncation leaves of a row of logits."""
    rows = sampling_rows([params])
    scores = row.clone()[None]
    truncate(scores, rows.top_ks, rows.top_ps, rows.min_ps)
    return set(torch.nonzero(scores[0] > -math.inf).flatten().tolist())


def kept_by_transformers(row, *, top_k=0, top_p=1.0, min_p=0.0):
    warpers = [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    scores = row.clone()[None]
    for warper in warpers:
        scores = warper(torch.zeros(1, 1, dtype=torch.int64), scores)
    return set(torch.nonzero(scores[0] > -math.inf).flatten().tolist())


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 3, 39, 40, 100]),
    top_p=st.sampled_from([0.05, 0.3, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_truncation_keeps_what_transformers_keeps(seed, spread, top_k, top_p, min_p):
    row = random_logits(1, seed=seed)[0] * spread
    options = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    assert kept(row, **options) == kept_by_transformers(row, **options)


def test_tied_tokens_at_the_edge_of_top_k_stay_together():
    row = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    assert kept(row, top_k=2) == kept_by_transformers(row, top_k=2) == {0, 2, 3, 4}


def test_tied_tokens_at_the_edge_of_a_nucleus_stay_together():
    row = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    # transformers cuts through the tie, in an order that its sort happens to give.
    assert kept(row, top_p=0.6) == {0, 2, 3, 4}
    assert kept_by_transformers(row, top_p=0.6) < {0, 2, 3, 4}


@pytest.mark.parametrize("min_p", [0.2, 0.5])
def test_tied_tokens_are_kept_or_dropped_together_by_min_p(min_p):
    row = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    assert kept(row, min_p=min_p) == kept_by_transformers(row, min_p=min_p)


def test_the_likeliest_token_always_stays():
    row = random_logits(1)[0]
    best = {int(row.argmax())}
    assert kept(row, top_p=0.0) == kept(row, min_p=1.0) == kept(row, top_k=1) == best
    assert kept(row, top_k=5, top_p=1e-9, min_p=1.0) == best


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.99])
def test_a_nucleus_wider_than_the_candidates_is_found(top_p):
    row = random_logits(1, 5000)[0] * 0.3
    ours = kept(row, top_p=top_p)
    assert len(ours) > NUCLEUS_CANDIDATES
    reference = kept_by_transformers(row, top_p=top_p)
    # Sums of thousands of float32 differ in their last bits by the order of summation.
    assert len(ours ^ reference) <= 2


def test_a_nucleus_of_exactly_the_candidates_is_found():
    row = torch.full((5000,), -100.0)
    row[:NUCLEUS_CANDIDATES] = 0.0
    assert kept(row, top_p=0.9999999) == set(range(NUCLEUS_CANDIDATES))


def test_a_nucleus_over_all_tokens_is_found():
    assert len(kept(random_logits(1, 3000)[0] * 1e-4, top_p=0.99999994)) == 3000


def test_only_kept_tokens_are_chosen():
    row = random_logits(1)[0]
    rows = sampling_rows([{"position": n, "top_k": 7, "top_p": 0.8, "temperature": 2.0} for n in range(600)])
    tokens = set(sample_tokens(row.repeat(600, 1), rows)[0].tolist())
    scaled = TemperatureLogitsWarper(2.0)(None, row[None])[0]
    assert tokens == kept_by_transformers(scaled, top_k=7, top_p=0.8)


def test_a_row_may_be_truncated_beside_others_that_are_not():
    row = random_logits(1)[0]
    options = [
        {},
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.3},
        {"top_k": 9, "top_p": 0.9, "min_p": 0.05},
        {},
    ]
    rows = sampling_rows(options)
    scores = row.repeat(len(options), 1)
    truncate(scores, rows.top_ks, rows.top_ps, rows.min_ps)
    for found, own in zip(scores, options, strict=True):
        assert set(torch.nonzero(found > -math.inf).flatten().tolist()) == kept(row, **own)


def test_logits_are_not_changed():
    logits = random_logits(3)
    before = logits.clone()
    sample_tokens(logits, sampling_rows([{"top_p": 0.5, "top_k": 3}, {"temperature": 0.0}, {"min_p": 0.5}]))
    assert torch.equal(logits, before)


def test_the_noise_of_a_seed_never_changes():
    """Replays of open requests, and people's own seeds, depend on it."""
    rows = sampling_rows([{"seed": 7 - 5 * n, "choice": n % 2, "position": 3 * n} for n in range(12)])
    token_ids, is_finite = sample_tokens(torch.zeros(12, 1000), rows)
    assert is_finite.all()
    assert token_ids.tolist() == [350, 339, 309, 74, 120, 78, 756, 936, 180, 315, 675, 375]


@pytest.mark.parametrize(
    "options",
    [{"top_k": 4}, {"top_p": 0.85}, {"min_p": 0.1}, {"top_k": 5, "top_p": 0.9, "temperature": 1.7}],
    ids=str,
)
def test_choices_follow_the_truncated_softmax(options):
    row, num_positions = random_logits(1)[0] * 2, 3000
    rows = sampling_rows([{"seed": -3, "position": n, **options} for n in range(num_positions)])
    token_ids, _ = sample_tokens(row.repeat(num_positions, 1), rows)
    scores = (row / options.get("temperature", 1.0))[None].clone()
    truncate(scores, rows.top_ks[:1], rows.top_ps[:1], rows.min_ps[:1])
    probabilities = scores[0].double().softmax(dim=-1)
    is_possible = probabilities > 0
    counts = torch.bincount(token_ids, minlength=VOCAB_SIZE).double()
    assert counts[~is_possible].sum() == 0
    expected = probabilities[is_possible] * num_positions
    chi_square = float(((counts[is_possible] - expected) ** 2 / expected).sum())
    # One in a thousand exceeds this (Wilson and Hilferty, 1931).
    degrees = int(is_possible.sum()) - 1
    assert degrees >= 2
    assert chi_square < degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3
