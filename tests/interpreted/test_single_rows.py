"""Where a row's bits must not depend on the batch: prompt chunks by the kernel for decode rows."""

import pytest
import torch
from support.ragged_batches import RaggedBatch

from ondol.kernels.backend import REFERENCE
from ondol.kernels.triton import single_rows
from ondol.kernels.triton.backend import DETERMINISTIC

NAN = float("nan")


@pytest.mark.parametrize(("heads", "window"), [((4, 2), None), ((3, 3), 5), ((2, 1), 300)])
def test_chunks_attend_to_their_prefix_and_causally_to_themselves(heads, window):
    batch = RaggedBatch([20], [(0, 3), (254, 4)], heads=heads, head_dim=24, garbage=NAN)
    expected = RaggedBatch([20], [(0, 3), (254, 4)], heads=heads, head_dim=24).attend(REFERENCE, window)
    torch.testing.assert_close(batch.attend(DETERMINISTIC, window), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 21])
def test_a_row_has_the_same_bits_in_a_chunk_and_by_itself(window):
    whole = RaggedBatch(prefills=[(253, 6)], heads=(2, 1), head_dim=16)
    expected = whole.attend(DETERMINISTIC, window)
    own = whole.metadata.prefills[0].block_ids
    for start in (254, 255, 256):
        alone = RaggedBatch([start + 1], heads=(2, 1), head_dim=16)
        table = alone.metadata.decodes.block_tables[0].long()
        alone.copy_blocks(table, whole, own[: len(table)])
        alone.query = whole.query[start - 253 : start - 252].clone()
        assert torch.equal(alone.attend(DETERMINISTIC, window)[0], expected[start - 253])
    chunk = RaggedBatch(prefills=[(255, 4)], heads=(2, 1), head_dim=16)
    chunk.copy_blocks(chunk.metadata.prefills[0].block_ids, whole, own)
    chunk.query = whole.query[2:].clone()
    assert torch.equal(chunk.attend(DETERMINISTIC, window), expected[2:])


def test_rows_that_do_not_fit_the_workspace_come_in_several_launches(monkeypatch):
    batch = RaggedBatch(prefills=[(7, 8)], heads=(2, 1), head_dim=16)
    expected = batch.attend(DETERMINISTIC)
    monkeypatch.setattr(single_rows, "MAX_WORKSPACE_BYTES", 3 * 2 * 18 * 4)
    assert torch.equal(batch.attend(DETERMINISTIC), expected)
