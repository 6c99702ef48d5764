"""Every step has a size that holds it, and padding stays small."""

import pytest

from ondol.engine.step_sizes import MAX_POSITIONS, StepSizes


@pytest.mark.parametrize(("max_num_seqs", "max_model_len"), [(1, 20), (7, 1024), (64, 5000), (300, 32768)])
def test_every_step_within_the_bounds_has_a_size_that_holds_it(max_num_seqs, max_model_len):
    sizes = StepSizes(max_num_seqs, max_model_len)
    for num_rows in range(1, max_num_seqs + 1):
        for context_len in (1, max_model_len // 2, max_model_len):
            size = sizes.of(num_rows, context_len)
            assert num_rows <= size.num_rows <= sizes.max_num_rows
            assert context_len <= size.max_context_len <= max_model_len
    assert sizes.max_model_len == max_model_len


def test_few_rows_are_padded_by_less_than_eight_and_many_by_less_than_sixteen():
    sizes = StepSizes(400, 4096)
    assert [sizes.of(num_rows, 1).num_rows for num_rows in (1, 2, 3, 5, 9)] == [1, 2, 4, 8, 16]
    assert all(sizes.of(num_rows, 1).num_rows - num_rows < 8 for num_rows in range(1, 257))
    assert all(sizes.of(num_rows, 1).num_rows - num_rows < 16 for num_rows in range(257, 401))


def test_the_size_that_takes_most_memory_is_recorded_first_and_stays_bounded():
    recorded = StepSizes(256, 32768).recorded()
    positions = [size.num_rows * size.max_context_len for size in recorded]
    assert positions[0] == max(positions) <= MAX_POSITIONS
    assert len(set(recorded)) == len(recorded)
    assert recorded[1] == (256, 1024)
