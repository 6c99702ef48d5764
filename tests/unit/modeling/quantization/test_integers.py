import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.packers import pack_words

from ondol.modeling.quantization.integers import order_of_groups, pack_nibbles, unpack, words
from ondol.modeling.slots import BadTensor


@given(bits=st.sampled_from([4, 8]), data=st.data(), rows=st.integers(1, 4), length=st.integers(1, 40))
def test_unpacking_gives_the_codes_that_were_packed(bits, data, rows, length):
    code = st.integers(0, 2**bits - 1)
    codes = np.array(data.draw(st.lists(code, min_size=rows * length, max_size=rows * length)))
    codes = codes.reshape(rows, length)
    packed = pack_words(codes, bits)
    assert packed.shape == (rows, words(length, bits))
    assert unpack(packed, bits)[:, :length].tolist() == codes.tolist()
    transposed = packed.T.contiguous().T  # as GPTQ's lie
    assert unpack(transposed, bits)[:, :length].tolist() == codes.tolist()


def test_codes_of_a_word_are_taken_in_the_order_of_their_slots():
    packed = pack_words(np.array([[10, 11, 12, 13, 14, 15, 0, 1]]), 4)
    assert unpack(packed, 4, (0, 4, 1, 5, 2, 6, 3, 7)).tolist() == [[10, 14, 11, 15, 12, 0, 13, 1]]


def test_nibbles_hold_the_even_column_high_and_odd_rows_are_filled_up():
    codes = torch.tensor([[1, 2, 15]], dtype=torch.uint8)
    assert pack_nibbles(codes).tolist() == [[0x12, 0xF0]]


@given(num_in=st.integers(1, 60), group_size=st.integers(1, 64), seed=st.integers(0, 9))
def test_sorted_columns_lie_group_by_group_and_keep_their_order_within(num_in, group_size, seed):
    expected = torch.arange(num_in) // group_size
    groups = expected[torch.randperm(num_in, generator=torch.Generator().manual_seed(seed))]
    order = order_of_groups("g_idx", groups, num_in, group_size)
    if order is None:
        assert torch.equal(groups, expected)
        return
    assert torch.equal(groups[order], expected)
    within = [order[expected == group].tolist() for group in expected.unique()]
    assert within == [sorted(columns) for columns in within]


@pytest.mark.parametrize(
    ("groups", "group_size", "reason"),
    [
        ([0, 0, 1, 2], 2, "names the group 2, but there are 2"),
        ([0, -1, 1, 1], 2, "names the group -1, but there are 2"),
        ([0, 0, 0, 1], 2, "does not share the columns out in groups of 2"),
        ([0, 0, 1, 0], None, "names the group 1, but there are 1"),
        ([0, 0, 1], 2, r"has shape \[3\]"),
        ([2**40, 0, 0, 1], 2, "names the group 1099511627776"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, group_size, reason):
    with pytest.raises(BadTensor, match=reason):
        order_of_groups("g_idx", torch.tensor(groups), 4, group_size)


def test_groups_must_be_integers():
    with pytest.raises(BadTensor, match=r"holds torch\.float32"):
        order_of_groups("g_idx", torch.zeros(4), 4, 2)
