"""Blocks are shared by equal prefixes, reused oldest first, and never lost."""

from ondol.engine.block_manager import BlockManager
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams

BLOCK_SIZE = 4


def make_request(token_ids: list[int], *, salt: str = "") -> Request:
    return Request("r", list(token_ids), len(token_ids), SamplingParams(max_tokens=8), cache_salt=salt)


def compute(manager: BlockManager, request: Request) -> None:
    """Admit a request and pretend that all its tokens were computed."""
    manager.admit(request)
    request.num_computed_tokens = request.num_tokens
    manager.register_computed(request, request.num_computed_tokens)


def test_an_admitted_request_holds_the_blocks_of_all_its_tokens():
    manager = BlockManager(8, BLOCK_SIZE)
    request = make_request([1] * 9)
    manager.admit(request)
    assert len(request.block_ids) == 3
    assert manager.num_used_blocks == 3


def test_a_request_that_needs_more_than_what_is_free_is_not_admitted():
    manager = BlockManager(3, BLOCK_SIZE)
    assert manager.can_admit(make_request([1] * 12), 0)
    assert not manager.can_admit(make_request([1] * 13), 0)
    assert not manager.can_admit(make_request([1] * 12), 1)


def test_equal_prefixes_share_full_blocks_and_leave_one_token_to_compute():
    manager = BlockManager(8, BLOCK_SIZE)
    first = make_request([1, 2, 3, 4, 5, 6, 7, 8])
    compute(manager, first)
    second = make_request([1, 2, 3, 4, 5, 6, 7, 8])
    manager.admit(second)
    assert second.block_ids[0] == first.block_ids[0]
    assert second.block_ids[1] != first.block_ids[1]
    assert second.num_computed_tokens == 4


def test_a_block_is_found_again_after_its_owner_has_gone():
    manager = BlockManager(8, BLOCK_SIZE)
    first = make_request([1, 2, 3, 4, 5])
    compute(manager, first)
    block = first.block_ids[0]
    manager.free(first)
    assert manager.num_used_blocks == 0
    second = make_request([1, 2, 3, 4, 9])
    manager.admit(second)
    assert second.block_ids[0] == block
    assert (second.num_cached_tokens, manager.prefix_stats.hit_tokens) == (4, 4)


def test_output_blocks_are_found_by_the_next_turn():
    manager = BlockManager(8, BLOCK_SIZE)
    first = make_request([1, 2, 3])
    manager.admit(first)
    first.token_ids += [4, 5, 6, 7, 8]
    manager.append(first)
    first.num_computed_tokens = 8
    manager.register_computed(first, first.num_computed_tokens)
    manager.free(first)
    second = make_request([1, 2, 3, 4, 5, 6, 7, 8, 9])
    manager.admit(second)
    assert second.num_computed_tokens == 8


def test_the_same_tokens_behind_another_prefix_are_another_block():
    manager = BlockManager(8, BLOCK_SIZE)
    compute(manager, make_request([1, 2, 3, 4, 5, 6, 7, 8, 9]))
    other = make_request([9, 9, 9, 9, 5, 6, 7, 8, 9])
    manager.admit(other)
    assert other.num_computed_tokens == 0


def test_requests_with_different_salts_share_nothing():
    manager = BlockManager(8, BLOCK_SIZE)
    compute(manager, make_request([1, 2, 3, 4, 5], salt="tenant a"))
    other = make_request([1, 2, 3, 4, 5], salt="tenant b")
    manager.admit(other)
    assert other.num_computed_tokens == 0


def test_blocks_that_are_computed_but_not_registered_are_not_shared():
    manager = BlockManager(8, BLOCK_SIZE)
    first = make_request([1, 2, 3, 4, 5])
    manager.admit(first)
    second = make_request([1, 2, 3, 4, 5])
    manager.admit(second)
    assert not set(first.block_ids) & set(second.block_ids)


def test_the_least_recently_freed_block_is_reused_first_and_then_forgotten():
    manager = BlockManager(2, BLOCK_SIZE)
    old, new = make_request([1, 2, 3, 4]), make_request([5, 6, 7, 8])
    compute(manager, old)
    compute(manager, new)
    manager.free(old)
    manager.free(new)
    third = make_request([9])
    manager.admit(third)
    manager.free(third)
    again = make_request([5, 6, 7, 8, 1])
    manager.admit(again)
    assert again.num_computed_tokens == 4
    manager.free(again)
    forgotten = make_request([1, 2, 3, 4, 1])
    manager.admit(forgotten)
    assert forgotten.num_computed_tokens == 0


def test_a_tail_is_reused_before_the_head_of_the_same_prefix():
    manager = BlockManager(3, BLOCK_SIZE)
    long = make_request([1, 2, 3, 4, 5, 6, 7, 8, 9])
    compute(manager, long)
    manager.free(long)
    taker = make_request([7, 7, 7, 7, 7])  # takes the tail block and the second one
    manager.admit(taker)
    manager.free(taker)
    again = make_request([1, 2, 3, 4, 5])
    manager.admit(again)
    assert again.num_computed_tokens == 4


def test_forgotten_blocks_are_not_found_again():
    manager = BlockManager(8, BLOCK_SIZE)
    poisoned = make_request([1, 2, 3, 4, 5])
    compute(manager, poisoned)
    manager.forget(poisoned)
    manager.free(poisoned)
    other = make_request([1, 2, 3, 4, 5])
    manager.admit(other)
    assert other.num_computed_tokens == 0


def test_without_prefix_caching_nothing_is_shared():
    manager = BlockManager(8, BLOCK_SIZE, enable_prefix_caching=False)
    compute(manager, make_request([1, 2, 3, 4, 5]))
    other = make_request([1, 2, 3, 4, 5])
    manager.admit(other)
    assert other.num_computed_tokens == 0
