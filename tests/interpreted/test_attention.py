"""Triton's paged attention against the torch reference."""

import pytest
import torch
from support.ragged_batches import RaggedBatch

from ondol.kernels.backend import REFERENCE
from ondol.kernels.triton.backend import TRITON

NAN = float("nan")


def check(decodes=(), prefills=(), *, window=None, dtype=torch.float32, **shape):
    """The same batch through both; where nobody's values lie Triton finds NaN, and must not read it."""
    expected = RaggedBatch(decodes, prefills, dtype=dtype, **shape).attend(REFERENCE, window)
    attended = RaggedBatch(decodes, prefills, dtype=dtype, garbage=NAN, **shape).attend(TRITON, window)
    assert attended.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(attended, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"),
    [((4, 4), 64, 16), ((6, 2), 96, 8), ((7, 1), 128, 16), ((2, 2), 24, 4), ((3, 3), 8, 3)],
)
def test_decode_rows_attend_to_their_own_context(heads, head_dim, block_size):
    check([1, 15, 16, 17, 40], heads=heads, head_dim=head_dim, block_size=block_size)


@pytest.mark.parametrize("length", [255, 256, 257, 600])
def test_splits_of_a_long_context_are_merged(length):
    check([length, 3], heads=(2, 1), head_dim=16)


@pytest.mark.parametrize("window", [1, 5, 64, 255, 257, 10_000])
def test_decode_rows_see_no_further_than_their_window(window):
    check([1, 60, 300, 530], window=window, heads=(2, 1), head_dim=16)


@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"),
    [((4, 4), 64, 16), ((6, 2), 96, 8), ((2, 1), 128, 16), ((2, 2), 24, 4), ((3, 3), 8, 3)],
)
def test_prompt_chunks_attend_to_their_prefix_and_causally_to_themselves(heads, head_dim, block_size):
    check(prefills=[(0, 2), (30, 65), (16, 7)], heads=heads, head_dim=head_dim, block_size=block_size)


@pytest.mark.parametrize("window", [1, 5, 63, 100])
def test_prompt_chunks_see_no_further_than_their_window(window):
    check(prefills=[(0, 70), (90, 66)], window=window, heads=(2, 1), head_dim=16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    check([20, 300], [(10, 20)], dtype=dtype, heads=(4, 2))


@pytest.mark.parametrize("num_rows", [1, 2, 65])
def test_a_row_does_not_depend_on_the_rows_beside_it(num_rows):
    alone = RaggedBatch([300], heads=(1, 1), head_dim=16)
    crowd = RaggedBatch([300] + [7] * (num_rows - 1), [(5, 9)], heads=(1, 1), head_dim=16)
    # The same request, in another place of a batch that is laid out otherwise.
    slots = crowd.metadata.decodes.block_tables[-1, :19].long()
    own = alone.metadata.decodes.block_tables[0, :19].long()
    crowd.copy_blocks(slots, alone, own)
    row = crowd.metadata.decodes.rows[-1]
    crowd.query[row] = alone.query[0]
    assert torch.equal(crowd.attend(TRITON)[row], alone.attend(TRITON)[0])


def test_a_chunk_attends_as_the_whole_prompt_does():
    whole = RaggedBatch(prefills=[(0, 100)], heads=(2, 1), head_dim=16)
    expected = whole.attend(TRITON)
    chunk = RaggedBatch(prefills=[(30, 70)], heads=(2, 1), head_dim=16)
    table = chunk.metadata.prefills[0].block_ids
    chunk.copy_blocks(table, whole, whole.metadata.prefills[0].block_ids)
    chunk.query = whole.query[30:].contiguous()
    assert torch.equal(chunk.attend(TRITON), expected[30:])


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 1000])
@pytest.mark.parametrize("heads", [(32, 32), (28, 4)])
def test_contexts_of_thousands_of_tokens(heads, window):
    """Minutes: every tile of the interpreter is a few numpy calls."""
    check([1, 4096, 3000], [(2000, 130)], heads=heads, head_dim=128, window=window)
