import math
import random

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from ondol.engine.grammar import RowMasks
from ondol.engine.request import Request
from ondol.engine.sampler import Sampler
from ondol.engine.sampling_params import SamplingParams

CPU = torch.device("cpu")
VOCAB_SIZE = 40


def request(token_ids=(1, 2, 3), num_prompt_tokens=None, end_token_ids=(), **params):
    """A request whose next token is at position len(token_ids)."""
    return Request(
        request_id="r",
        token_ids=list(token_ids),
        num_prompt_tokens=len(token_ids) if num_prompt_tokens is None else num_prompt_tokens,
        params=SamplingParams(max_tokens=100, **params),
        end_token_ids=frozenset(end_token_ids),
    )


def at_position(position, **params):
    return request([0] * position, **params)


def sample(logits, requests, masks=None):
    """One token id per row; None where the logits were not finite."""
    sampler = Sampler(logits.shape[-1], CPU)
    token_ids, is_finite = sampler.sample(logits.clone(), requests, positions_of(requests), masks)
    return [token if ok else None for token, ok in zip(token_ids.tolist(), is_finite.tolist(), strict=True)]


def positions_of(requests):
    return torch.tensor([request.num_tokens for request in requests])


def random_logits(num_rows, vocab_size=VOCAB_SIZE, seed=0):
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


# Greedy


def test_temperature_zero_takes_the_likeliest_token_of_each_row():
    logits = random_logits(5)
    assert sample(logits, [request(temperature=0.0)] * 5) == logits.argmax(dim=-1).tolist()


def test_greedy_ignores_the_seed():
    logits = random_logits(1)
    assert {sample(logits, [request(temperature=0.0, seed=seed)])[0] for seed in range(20)} == {
        int(logits.argmax())
    }


def test_a_tiny_temperature_and_a_top_k_of_one_are_greedy():
    logits = random_logits(30)
    expected = logits.argmax(dim=-1).tolist()
    assert sample(logits, [at_position(n, temperature=1e-6) for n in range(30)]) == expected
    assert sample(logits, [at_position(n, top_k=1) for n in range(30)]) == expected


# The random stream


def test_a_token_depends_on_its_own_request_alone():
    generator = random.Random(0)
    logits = random_logits(24)
    requests = [
        at_position(
            generator.randrange(1, 50),
            seed=generator.randrange(2**64),
            temperature=generator.choice([0.0, 0.5, 1.0, 2.0]),
            top_p=generator.choice([1.0, 0.7]),
        )
        for _ in range(24)
    ]
    together = sample(logits, requests)
    order = list(range(24))
    generator.shuffle(order)
    shuffled = sample(logits[order], [requests[index] for index in order])
    alone = [sample(logits[index : index + 1], [requests[index]])[0] for index in range(24)]
    assert alone == together
    assert shuffled == [together[index] for index in order]


def test_equal_seed_and_position_give_equal_tokens_whatever_the_tokens_before():
    logits = random_logits(1).repeat(2, 1)
    first, second = sample(logits, [request([5, 6, 7], seed=9), request([1, 1, 1], 1, seed=9)])
    assert first == second


def stream(length=200, **params):
    """The tokens of one request at many positions, from a uniform distribution."""
    requests = [at_position(position, **params) for position in range(length)]
    return sample(torch.zeros(length, VOCAB_SIZE), requests)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"seed": 0}, {"seed": 1}),
        ({"seed": 0}, {"seed": -1}),
        ({"seed": 1}, {"seed": 1, "choice": 1}),
        ({"seed": 1, "choice": 1}, {"seed": 2, "choice": 0}),
        ({"seed": 5}, {"seed": 5 + 2**32}),
        ({"seed": 5}, {"seed": 5 + 2**63}),
    ],
)
def test_another_seed_or_choice_gives_another_stream(left, right):
    same = sum(a == b for a, b in zip(stream(**left), stream(**right), strict=True))
    # By chance 200 / 40 = 5 agree.
    assert same < 20


def test_the_same_seed_gives_the_same_stream():
    assert stream(seed=7, choice=2) == stream(seed=7, choice=2)


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63, 2**64 - 1, 2**63 - 1])
def test_seeds_of_all_64_bits_are_welcome(seed):
    assert len(set(stream(seed=seed))) > 30


def test_a_negative_seed_is_its_64_bit_pattern():
    assert stream(seed=-1) == stream(seed=2**64 - 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_choices_follow_the_softmax(seed, temperature):
    row = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -2.0])
    num_positions = 1500
    requests = [at_position(n, seed=seed, temperature=temperature) for n in range(num_positions)]
    tokens = torch.tensor(sample(row.repeat(num_positions, 1), requests))
    counts = torch.bincount(tokens, minlength=6).double()
    # 5 degrees of freedom: one in a thousand exceeds 20.5.
    assert chi_square(counts, (row / temperature).double().softmax(dim=-1)) < 20.5


@pytest.mark.parametrize(
    "neighbour",
    [
        lambda n: at_position(n + 1, seed=3),
        lambda n: at_position(n, seed=4),
        lambda n: at_position(n, seed=3, choice=1),
    ],
    ids=["position", "seed", "choice"],
)
def test_neighbouring_streams_are_independent(neighbour):
    num_positions = 1600
    logits = torch.zeros(num_positions, 4)
    first = torch.tensor(sample(logits, [at_position(n, seed=3) for n in range(num_positions)]))
    second = torch.tensor(sample(logits, [neighbour(n) for n in range(num_positions)]))
    counts = torch.bincount(first * 4 + second, minlength=16).double()
    # 15 degrees of freedom: one in a thousand exceeds 37.7.
    assert chi_square(counts, torch.full((16,), 1 / 16, dtype=torch.float64)) < 37.7


def test_a_large_vocabulary_is_drawn_from_evenly():
    vocab_size = 150_000
    requests = [at_position(n, seed=1) for n in range(100)]
    tokens = torch.tensor(sample(torch.zeros(100, vocab_size), requests))
    assert len(set(tokens.tolist())) > 95
    counts = torch.histc(tokens.double(), bins=5, min=0, max=vocab_size)
    # 4 degrees of freedom: one in a thousand exceeds 18.5.
    assert chi_square(counts.double(), torch.full((5,), 0.2, dtype=torch.float64)) < 18.5


# Bias, penalties and bans


def adjusted(row, request):
    """The logits that a greedy request's choice was made from."""
    assert request.params.temperature == 0.0
    logits = row.clone()[None]
    Sampler(row.shape[0], CPU).sample(logits, [request], positions_of([request]))
    return logits[0]


@pytest.mark.parametrize("penalty", [0.5, 1.2, 2.0])
def test_the_repetition_penalty_equals_transformers(penalty):
    row = random_logits(1)[0]
    ids = [3, 5, 5, 7, 3, 9]
    ours = adjusted(row, request(ids, 4, temperature=0.0, repetition_penalty=penalty))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([ids]), row.clone()[None])[0]
    torch.testing.assert_close(ours, expected)
    assert not torch.equal(ours, row)


def test_presence_and_frequency_penalties_follow_openai_over_the_output():
    row = random_logits(1)[0]
    output = [5, 5, 7, 5]
    ours = adjusted(
        row, request([1, 5, 9, *output], 3, temperature=0.0, presence_penalty=0.5, frequency_penalty=0.25)
    )
    expected = row.clone()
    for token in set(output):
        expected[token] -= output.count(token) * 0.25 + 0.5
    torch.testing.assert_close(ours, expected)


def test_penalties_count_what_a_request_has_grown_by():
    row = random_logits(1)[0]
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    growing = request([1, 5], temperature=0.0, **penalties)
    for token in (5, 9, 5, 2):
        growing.add_output_token(token)
        at_once = request(growing.token_ids, 2, temperature=0.0, **penalties)
        assert torch.equal(adjusted(row, growing), adjusted(row, at_once))
        assert not torch.equal(adjusted(row, growing), row)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_a_negative_penalty_makes_repetition_likelier(name):
    ours = adjusted(torch.zeros(VOCAB_SIZE), request([1, 4], 1, temperature=0.0, **{name: -1.0}))
    assert ours[4] == 1.0
    assert ours.sum() == 1.0


def test_the_prompt_is_not_output():
    row = random_logits(1)[0]
    ours = adjusted(row, request([1, 2], temperature=0.0, presence_penalty=2.0, frequency_penalty=2.0))
    assert torch.equal(ours, row)


def test_bias_is_added_to_its_tokens():
    row = random_logits(1)[0]
    ours = adjusted(row, request(temperature=0.0, logit_bias=((3, 2.5), (8, -1.0))))
    expected = row.clone()
    expected[3] += 2.5
    expected[8] -= 1.0
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bias_of_a_hundred_forces_and_bans(temperature):
    logits = random_logits(50)
    forced = [at_position(n, temperature=temperature, logit_bias=((3, 100.0),)) for n in range(50)]
    banned = [at_position(n, temperature=temperature, logit_bias=((3, -100.0),)) for n in range(50)]
    assert set(sample(logits, forced)) == {3}
    assert 3 not in sample(logits, banned)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_end_tokens_are_impossible_before_the_fewest_tokens(temperature):
    row = torch.zeros(VOCAB_SIZE)
    row[7], row[2] = 50.0, 50.0

    def next_token(num_output_tokens):
        ids = [1, *[4] * num_output_tokens]
        options = {"temperature": temperature, "min_tokens": 3}
        return sample(row[None], [request(ids, 1, end_token_ids=(2, 7), **options)])[0]

    assert [next_token(count) in {2, 7} for count in range(5)] == [False, False, False, True, True]


# Rows that are not finite


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_gives_none_and_leaves_the_others_alone(poison, temperature):
    logits = random_logits(5)
    requests = [
        at_position(n + 1, temperature=temperature, top_p=0.9, repetition_penalty=1.1) for n in range(5)
    ]
    clean = sample(logits, requests)
    logits[1, 7] = poison
    logits[3] = -math.inf
    assert sample(logits, requests) == [clean[0], None, clean[2], None, clean[4]]


def test_single_tokens_of_minus_infinity_are_just_impossible():
    logits = torch.full((50, VOCAB_SIZE), -math.inf)
    logits[:, [4, 9]] = 0.0
    assert set(sample(logits, [at_position(n, top_p=0.99, min_p=0.01) for n in range(50)])) == {4, 9}


def test_a_grammar_that_forbids_everything_does_not_make_the_models_logits_infinite():
    logits = random_logits(2)
    logits[1, 3] = math.nan
    masks = RowMasks([0, 1], np.zeros((2, -(-VOCAB_SIZE // 32)), dtype=np.int32))
    assert sample(logits, [at_position(1), at_position(2)], masks) == [0, None]


def test_a_mask_holds_for_its_row_and_for_no_other():
    logits = random_logits(4)
    allowed = {1: [0, 31, VOCAB_SIZE - 1], 3: [32]}
    bits = np.zeros((2, -(-VOCAB_SIZE // 32) + 1, 32), dtype=bool)
    for place, token_ids in enumerate(allowed.values()):
        for token_id in token_ids:
            bits[place, token_id // 32, token_id % 32] = True
    # Words beyond the vocabulary, and bits beyond it in its last word, allow nothing that there is.
    bits.reshape(2, -1)[:, VOCAB_SIZE:] = True
    words = np.packbits(bits.reshape(2, -1), axis=1, bitorder="little").view(np.int32)
    chosen = sample(logits.clone(), [at_position(1, temperature=0.0)] * 4, RowMasks(list(allowed), words))
    best = logits.argmax(dim=-1).tolist()
    assert chosen == [best[0], max(allowed[1], key=lambda token: logits[1, token]), best[2], 32]


# The rows' parameters


def test_a_sampler_follows_its_batch_as_requests_come_and_go():
    logits = random_logits(4) * 0.1
    biases = [(), ((7, 9.0),), (), ((2, 30.0), (9, 29.0))]
    requests = [
        at_position(n + 1, seed=n, temperature=0.5 + n, logit_bias=bias) for n, bias in enumerate(biases)
    ]
    expected = [sample(logits[[row]], [request])[0] for row, request in enumerate(requests)]
    assert expected[1] == 7
    assert expected[3] in {2, 9}
    sampler = Sampler(VOCAB_SIZE, CPU)
    for rows in ([0, 1], [0, 1], [1, 0], [1], [1, 2], [3, 2], [0, 1, 2, 3]):
        batch = [requests[row] for row in rows]
        token_ids, _ = sampler.sample(logits[rows], batch, positions_of(batch))
        assert token_ids.tolist() == [expected[row] for row in rows]
