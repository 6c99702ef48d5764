import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import (
    AttentionMetadata,
    DecodeRows,
    PagedKVCache,
    PrefillSpan,
    group_decodes,
    paged_attention,
)

HEAD_DIM = 8
SCALE = HEAD_DIM**-0.5


class Layout:
    """A flat batch over random, scattered blocks, and the contiguous contexts that it stands for.

    Args:
        decodes: context length of each decode row.
        prefills: (start, number of rows) of each span.
        garbage: what all other cache positions hold.
    """

    def __init__(self, decodes, prefills, *, num_kv_heads, block_size, garbage=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.contexts = [*decodes, *(start + num_rows for start, num_rows in prefills)]
        self.first_positions = [*(length - 1 for length in decodes), *(start for start, _ in prefills)]
        num_blocks = [math.ceil(length / block_size) for length in self.contexts]
        pool = torch.randperm(sum(num_blocks) + 2, generator=generator)
        tables = list(pool[: sum(num_blocks)].split(num_blocks))
        dims = (len(pool), block_size, num_kv_heads, HEAD_DIM)
        self.layer = KVLayer(torch.full(dims, garbage), torch.full(dims, garbage))
        self.contents = []
        for length, table in zip(self.contexts, tables, strict=True):
            slots = slots_of(table, torch.arange(length), block_size)
            pair = torch.randn(2, length, num_kv_heads, HEAD_DIM, generator=generator)
            self.layer.write(*pair, slots)
            self.contents.append(pair)
        self.metadata = self._build_metadata(decodes, prefills, tables, num_blocks)

    def _build_metadata(self, decodes, prefills, tables, num_blocks):
        # Longest first: rows need not come in the order of the batch.
        rows = sorted(range(len(decodes)), key=lambda row: -decodes[row])
        width = max(num_blocks[: len(decodes)], default=0)
        padded = [
            tables[row].tolist() + tables[row].tolist()[-1:] * (width - num_blocks[row]) for row in rows
        ]
        decode_rows = DecodeRows(
            torch.tensor(rows),
            torch.tensor(padded, dtype=torch.int32),
            torch.tensor([decodes[row] for row in rows], dtype=torch.int32),
            max(decodes, default=0),
        )
        spans, first_row = [], len(decodes)
        for (start, num_rows), table in zip(prefills, tables[len(decodes) :], strict=True):
            spans.append(PrefillSpan(first_row, num_rows, start, table))
            first_row += num_rows
        return AttentionMetadata(torch.empty(0, dtype=torch.int64), decode_rows if decodes else None, spans)

    @property
    def num_rows(self):
        return sum(length - first for length, first in zip(self.contexts, self.first_positions, strict=True))

    def attend(self, query, window):
        return paged_attention(query, self.layer, self.metadata, SCALE, window)

    def expected(self, query, window):
        """Row by row and head by head, in float64."""
        rows = []
        for length, first, (keys, values) in zip(
            self.contexts, self.first_positions, self.contents, strict=True
        ):
            for position in range(first, length):
                oldest = 0 if window is None else max(0, position + 1 - window)
                visible = slice(oldest, position + 1)
                rows.append(attend_one(query[len(rows)], keys[visible], values[visible]))
        return torch.stack(rows)


def slots_of(table, positions, block_size):
    return table[positions // block_size] * block_size + positions % block_size


def attend_one(query, keys, values):
    """[heads, D] over [L, kv_heads, D]."""
    group_size = query.shape[0] // keys.shape[1]
    heads = []
    for head, vector in enumerate(query.double()):
        scores = keys[:, head // group_size].double() @ vector * SCALE
        heads.append(scores.softmax(dim=0) @ values[:, head // group_size].double())
    return torch.stack(heads).float()


def check(layout, num_heads, window=None):
    query = torch.randn(layout.num_rows, num_heads, HEAD_DIM, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layout.attend(query, window), layout.expected(query, window))


lengths = st.integers(1, 20)


@settings(max_examples=60, deadline=None)
@given(
    decodes=st.lists(lengths, max_size=5),
    prefills=st.lists(st.tuples(st.integers(0, 12), st.integers(2, 9)), max_size=3),
    kv_heads=st.sampled_from([1, 2, 3]),
    group_size=st.sampled_from([1, 2, 4]),
    block_size=st.sampled_from([1, 3, 4, 16]),
    window=st.sampled_from([None, 1, 2, 5, 100]),
    seed=st.integers(0, 1000),
)
def test_every_row_attends_to_its_own_context_alone(
    decodes, prefills, kv_heads, group_size, block_size, window, seed
):
    if not decodes and not prefills:
        decodes = [1]
    layout = Layout(decodes, prefills, num_kv_heads=kv_heads, block_size=block_size, seed=seed)
    check(layout, kv_heads * group_size, window)


@pytest.mark.parametrize("garbage", [1e4, -1e4, 1e30])
@pytest.mark.parametrize("window", [None, 3])
def test_whatever_finite_values_other_blocks_hold_does_not_matter(garbage, window):
    layout = Layout([1, 9, 5], [(0, 3), (6, 5)], num_kv_heads=2, block_size=4, garbage=garbage)
    check(layout, 4, window)


def test_the_first_row_of_a_prompt_sees_its_own_value_only():
    layout = Layout([], [(0, 4)], num_kv_heads=2, block_size=4)
    attended = layout.attend(torch.randn(4, 2, HEAD_DIM), None)
    torch.testing.assert_close(attended[0], layout.contents[0][1][0])


def test_groups_and_masks_are_built_once_for_all_layers():
    layout = Layout([3, 9], [(0, 4)], num_kv_heads=1, block_size=4)
    built = []

    def build():
        built.append(len(built))
        return object()

    first = layout.metadata.once("masks", build)
    assert layout.metadata.once("masks", build) is first
    assert layout.metadata.once("others", build) is not first
    assert built == [0, 1]


def test_no_row_is_padded_to_more_than_twice_its_context():
    lens = [1, 40, 3, 17, 2, 2, 64, 9, 33]
    layout = Layout(lens, [], num_kv_heads=1, block_size=1)
    groups = group_decodes(layout.metadata.decodes, 1)
    assert sorted(row for group in groups for row in group.rows.tolist()) == list(range(len(lens)))
    for group in groups:
        assert [lens[row] for row in group.rows.tolist()] == group.context_lens.tolist()
        assert group.block_tables.shape[1] == group.context_lens.max() <= 2 * group.context_lens.min()


def test_rows_in_bfloat16_keep_their_type():
    layout = Layout([5], [(2, 3)], num_kv_heads=2, block_size=4)
    query = torch.randn(4, 4, HEAD_DIM)
    exact = layout.attend(query, None)
    layout.layer = KVLayer(layout.layer.keys.bfloat16(), layout.layer.values.bfloat16())
    attended = layout.attend(query.bfloat16(), None)
    assert attended.dtype is torch.bfloat16
    torch.testing.assert_close(attended.float(), exact, rtol=0.05, atol=0.05)


def test_the_cache_knows_its_block_size():
    assert PagedKVCache((KVLayer(*torch.zeros(2, 3, 16, 2, 8)),)).block_size == 16
