"""On a CPU every bit of a row's result is the same, however many rows there are and wherever it stands."""

import pytest
import torch
from support.quantized_matrices import random_matrix
from support.ragged_batches import RaggedBatch

from ondol.kernels import deterministic, operators
from ondol.kernels.backend import REFERENCE, deterministic_reference
from ondol.kernels.row_tiles import SINGLE, find_sizes
from ondol.kernels.sampling import SamplingRows

NUM_ROWS = (1, 2, 5, 17, 40, 130)
FEW_ROWS = (1, 2, 17, 40)


# Two threads are slow where other tests are running: each waits for the other to get its core.
@pytest.fixture(autouse=True, params=[1, pytest.param(2, marks=pytest.mark.slow)])
def num_threads(request):
    """Torch cuts work up by threads, and its library sums otherwise for each number of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def kernels():
    return deterministic_reference()


def check(compute, rows, numbers_of_rows=NUM_ROWS):
    """`compute` maps rows to rows; alone and at any place of a batch of any size a row gives the same."""
    alone = torch.cat([compute(rows[index : index + 1]) for index in range(3)])
    for num_rows in numbers_of_rows:
        for first in {0, (num_rows - 3) // 2, num_rows - 3} if num_rows >= 3 else {0}:
            batch = rows[3 : 3 + num_rows].clone()
            own = min(3, num_rows)
            batch[first : first + own] = rows[:own]
            found = compute(batch)[first : first + own]
            assert torch.equal(found, alone[:own]), f"{num_rows} rows, from place {first}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 1), (24, 7), (896, 1152), (300, 3000)])
def test_products_of_rows_do_not_depend_on_other_rows(kernels, dtype, num_in, num_out):
    torch.manual_seed(num_in)
    weight, bias = torch.randn(num_out, num_in).to(dtype), torch.randn(num_out).to(dtype)
    rows = torch.randn(140, num_in).to(dtype)
    check(lambda hidden: kernels.linear(hidden, weight, bias), rows)
    expected = operators.linear(rows.float(), weight.float(), bias.float())
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(
        kernels.linear(rows, weight, bias).float(), expected, rtol=tolerance, atol=10 * tolerance
    )


def test_no_rows_are_no_work(kernels):
    # A step that only reads a part of a prompt wants no logits.
    assert kernels.linear(torch.randn(0, 8), torch.randn(5, 8), torch.randn(5)).shape == (0, 5)
    assert kernels.silu_mul(torch.randn(0, 8)).shape == (0, 4)
    assert kernels.logsumexp(torch.randn(0, 8)).shape == (0, 1)


def test_a_library_that_sums_by_the_place_of_a_row_is_given_single_rows(monkeypatch):
    multiply = torch.matmul

    def by_place(rows, matrix):
        product = multiply(rows, matrix)
        product[..., 5:, :] += 1e-6
        return product

    monkeypatch.setattr(torch, "matmul", by_place)
    assert find_sizes(torch.randn(64, 64)) == SINGLE


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_tile_sizes_do_not_depend_on_what_a_matrix_holds(fill):
    assert find_sizes(torch.full((640, 96), fill)) == find_sizes(torch.randn(640, 96))


def test_norms_activations_and_routing_do_not_depend_on_other_rows(kernels):
    torch.manual_seed(1)
    # Widths that are no multiple of a vector, and tensors that torch cuts up for its threads.
    for width in (7, 1001):
        rows, weight = torch.randn(140, 2 * width) * 5, torch.randn(2 * width)
        check(kernels.silu_mul, rows)
        check(lambda hidden, weight=weight: kernels.rms_norm(hidden, weight, 1e-6), rows)
        check(kernels.logsumexp, rows)
    check(kernels.sigmoid, torch.randn(140, 1) * 5)
    logits = torch.randn(140, 60)
    check(lambda rows: kernels.route(rows, 4, True)[0], logits)
    check(lambda rows: kernels.route(rows, 4, True)[1], logits)


@pytest.mark.parametrize("function", [torch.nn.functional.silu, torch.sigmoid])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_give_the_same_at_every_place(function, dtype):
    values = (torch.randn(200) * 5).to(dtype)
    once = torch.cat([deterministic.by_vectors(function, value[None]) for value in values])
    for num_repeats in (1, 3, 131, 700):
        repeated = values.repeat_interleave(num_repeats)
        found = deterministic.by_vectors(function, repeated)
        assert torch.equal(found, once.repeat_interleave(num_repeats))


@pytest.mark.parametrize("is_quantized", [False, True])
def test_experts_do_not_depend_on_other_rows(kernels, is_quantized):
    torch.manual_seed(2)
    if is_quantized:
        shape = {"num_experts": 5, "kind": "nf4", "group_size": 16}
        gate_up = [random_matrix(part_rows=(48, 48), num_in=64, **shape)]
        stacks = (gate_up, random_matrix(part_rows=(64,), num_in=48, **shape))
    else:
        stacks = (torch.randn(5, 96, 64), torch.randn(5, 64, 48))
    operator = "quantized_mixture_of_experts" if is_quantized else "mixture_of_experts"

    def compute(rows, kernels=kernels):
        # A row's experts are a function of the row.
        experts = rows[:, :5].topk(2).indices
        return getattr(kernels, operator)(rows, rows[:, :2].sigmoid(), experts, *stacks)

    rows = torch.randn(140, 64)
    check(compute, rows, FEW_ROWS)
    torch.testing.assert_close(compute(rows), compute(rows, REFERENCE), rtol=1e-4, atol=1e-4)


def test_quantized_products_do_not_depend_on_other_rows(kernels):
    torch.manual_seed(3)
    matrix = random_matrix(part_rows=(96,), num_in=128, kind="int4", group_size=32, has_zeros=True)
    check(lambda hidden: kernels.quantized_linear(hidden, matrix, torch.ones(96)), torch.randn(140, 128))


def test_random_choices_do_not_depend_on_other_rows(kernels):
    torch.manual_seed(4)
    logits = torch.randn(43, 1003) * 3

    def sample(rows):
        count = len(rows)
        # What is asked for is a function of the row, too.
        seeds = (rows[:, 0] * 1e6).long()
        return kernels.sample_tokens(
            rows,
            SamplingRows(
                temperatures=torch.full((count,), 0.9),
                top_ks=(seeds % 50).int(),
                top_ps=torch.full((count,), 0.95),
                min_ps=torch.full((count,), 0.01),
                seeds=seeds,
                choices=torch.zeros(count, dtype=torch.int64),
                positions=torch.full((count,), 9),
            ),
        )[0]

    check(sample, logits, FEW_ROWS)


@pytest.mark.parametrize("window", [None, 5, 256, 300])
@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (7, 1)])
def test_attention_is_that_of_the_reference(kernels, heads, window):
    batch = RaggedBatch([1, 17, 300], [(0, 40), (250, 20), (500, 33)], heads=heads, head_dim=24)
    found = batch.attend(kernels, window)
    torch.testing.assert_close(found, batch.attend(REFERENCE, window), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 5, 256, 300])
def test_a_row_attends_alike_alone_in_chunks_and_beside_others(kernels, window):
    whole = RaggedBatch(prefills=[(0, 530)], heads=(4, 2), head_dim=24)
    expected = whole.attend(kernels, window)
    own = whole.metadata.prefills[0].block_ids
    for start, num_rows in ((0, 1), (0, 255), (7, 300), (250, 20), (255, 2), (256, 1), (529, 1), (300, 230)):
        decodes = [start + num_rows] if num_rows == 1 else []
        prefills = [] if num_rows == 1 else [(start, num_rows)]
        batch = RaggedBatch([40, 600, *decodes], [(10, 50), *prefills], heads=(4, 2), head_dim=24)
        if decodes:
            table, rows = batch.metadata.decodes.block_tables[0], batch.metadata.decodes.rows[:1]
        else:
            span = batch.metadata.prefills[-1]
            table, rows = span.block_ids, slice(span.first_row, span.first_row + num_rows)
        num_blocks = -(-(start + num_rows) // batch.layer.block_size)
        batch.copy_blocks(table[:num_blocks].long(), whole, own[:num_blocks])
        batch.query[rows] = whole.query[start : start + num_rows]
        found = batch.attend(kernels, window)[rows]
        assert torch.equal(found, expected[start : start + num_rows]), (start, num_rows)


def test_long_chunks_are_attended_to_in_pieces_of_bounded_memory(kernels, monkeypatch):
    batch = RaggedBatch(prefills=[(0, 70)], heads=(4, 2), head_dim=24)
    expected = batch.attend(kernels)
    monkeypatch.setattr("ondol.kernels.deterministic_attention.MAX_SCORES", 3 * 4 * 256)
    assert torch.equal(batch.attend(kernels), expected)


def test_what_former_owners_left_in_a_block_is_not_read(kernels):
    lengths = {"decodes": [5, 17], "prefills": [(3, 20)]}
    clean = RaggedBatch(**lengths, head_dim=24)
    poisoned = RaggedBatch(**lengths, head_dim=24, garbage=float("nan"))
    assert torch.equal(poisoned.attend(kernels), clean.attend(kernels))
