"""Which KV block belongs to whom: reference counts, prefix sharing, LRU reuse.

Pure bookkeeping over block numbers; knows nothing about tensors or scheduling order. Invariants: a
block is either in the free list (reference count 0) or referenced by at least one request; a shared
block is full and never written again; a free block keeps its contents and its hash until it is
handed out anew, so equal prefixes find it again. A block that a launched step still writes has no
hash: it may be freed and handed out at once, because the device works in the order of launches, but
nobody finds what was meant to be in it.

A block's hash chains its parent's hash with its token ids (and the request's salt at the root), so
that equal hashes mean equal whole prefixes. Output blocks are registered like prompt blocks: the
next turn of a conversation finds them.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from ondol.engine.request import Request

HASH_BYTES = 16


@dataclass(slots=True)
class PrefixCacheStats:
    """Counters since the start: prompt tokens looked up, and found."""

    query_tokens: int = 0
    hit_tokens: int = 0


class BlockManager:
    """Hands out KV blocks and takes them back.

    Args:
        num_blocks: blocks in the pool.
        block_size: tokens per block.
        enable_prefix_caching: share blocks between requests with equal prefixes.
    """

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self.prefix_stats = PrefixCacheStats()
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._ref_counts = [0] * num_blocks
        self._block_by_hash: dict[bytes, int] = {}
        self._hash_by_block: dict[int, bytes] = {}

    @property
    def num_free_blocks(self) -> int:
        """Blocks that nobody references; their old contents may still be found by hash."""
        return len(self._free)

    @property
    def num_used_blocks(self) -> int:
        """Blocks that at least one request references."""
        return self.num_blocks - len(self._free)

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold this many tokens."""
        return -(-num_tokens // self.block_size)

    def can_admit(self, request: Request, num_reserved_blocks: int) -> bool:
        """Whether all known tokens of a waiting request fit, leaving `num_reserved_blocks` free."""
        cached = self._find_cached_blocks(request)
        num_from_free_list = sum(1 for block in cached if self._ref_counts[block] == 0)
        num_new = self.num_blocks_for(request.num_tokens) - len(cached)
        return num_new + num_from_free_list + num_reserved_blocks <= len(self._free)

    def admit(self, request: Request) -> None:
        """Give a waiting request blocks for all its known tokens, cached ones first.

        Sets `num_computed_tokens` to what the cache supplies.
        """
        assert not request.block_ids, "admitted twice"
        cached = self._find_cached_blocks(request)
        for block in cached:
            self._reference(block)
        num_hit = len(cached) * self.block_size
        request.block_ids = cached
        request.num_registered_blocks = len(cached)
        request.num_computed_tokens = num_hit
        if request.num_cached_tokens is None:  # first admission; a resumed request is no new lookup
            request.num_cached_tokens = min(num_hit, request.num_prompt_tokens)
            if not request.needs_prompt_logprobs:  # which looks nothing up
                self.prefix_stats.query_tokens += request.num_prompt_tokens
            self.prefix_stats.hit_tokens += request.num_cached_tokens
        self._grow(request, request.num_tokens)

    def is_full(self, request: Request) -> bool:
        """Whether a running request lacks room for its newest token, which may be a pending one."""
        return request.num_expected_tokens > len(request.block_ids) * self.block_size

    def can_append(self, request: Request) -> bool:
        """Whether a running request has, or can get, room for all its tokens, pending ones too."""
        num_missing = self.num_blocks_for(request.num_expected_tokens) - len(request.block_ids)
        return num_missing <= len(self._free)

    def append(self, request: Request) -> None:
        """Make room for all tokens of a running request, pending ones too."""
        self._grow(request, request.num_expected_tokens)

    def register_computed(self, request: Request, num_tokens: int) -> None:
        """Make the newly filled blocks of a request findable by others.

        Args:
            request: a running one.
            num_tokens: its leading tokens whose computation has ended well; all of them are known.
        """
        num_full = num_tokens // self.block_size
        if num_full == request.num_registered_blocks or not self.enable_prefix_caching:
            return
        self._extend_hashes(request, num_full)
        for index in range(request.num_registered_blocks, num_full):
            self._register(request.block_hashes[index], request.block_ids[index])
        request.num_registered_blocks = num_full

    def free(self, request: Request) -> None:
        """Drop a request's references; its tail becomes reusable before its head (LRU)."""
        for block in reversed(request.block_ids):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free[block] = None
        request.block_ids = []
        request.num_registered_blocks = 0
        request.num_computed_tokens = 0

    def forget(self, request: Request) -> None:
        """Make a request's blocks unfindable: their contents turned out to be unusable."""
        for block in request.block_ids:
            digest = self._hash_by_block.pop(block, None)
            if digest is not None:
                del self._block_by_hash[digest]

    def _find_cached_blocks(self, request: Request) -> list[int]:
        """Longest run of cached blocks from the start; leaves at least one token to compute."""
        if not self.enable_prefix_caching or request.needs_prompt_logprobs:
            return []
        num_usable = (request.num_tokens - 1) // self.block_size
        self._extend_hashes(request, num_usable)
        found: list[int] = []
        for digest in request.block_hashes[:num_usable]:
            block = self._block_by_hash.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def _extend_hashes(self, request: Request, num_full: int) -> None:
        # Known tokens never change, so a hash once computed stays right, also through preemption.
        for index in range(len(request.block_hashes), num_full):
            parent = request.block_hashes[-1] if request.block_hashes else request.cache_salt.encode()
            start = index * self.block_size
            tokens = request.bytes_of_tokens(start, start + self.block_size)
            request.block_hashes.append(blake2b(parent + b"\0" + tokens, digest_size=HASH_BYTES).digest())

    def _register(self, digest: bytes, block: int) -> None:
        # Two requests may compute the same prefix side by side: the first registered block stays
        # findable, the second is simply private.
        if digest not in self._block_by_hash:
            self._block_by_hash[digest] = block
            self._hash_by_block[block] = digest

    def _reference(self, block: int) -> None:
        if self._ref_counts[block] == 0:
            del self._free[block]
        self._ref_counts[block] += 1

    def _grow(self, request: Request, num_tokens: int) -> None:
        for _ in range(self.num_blocks_for(num_tokens) - len(request.block_ids)):
            request.block_ids.append(self._take_free_block())

    def _take_free_block(self) -> int:
        block, _ = self._free.popitem(last=False)
        digest = self._hash_by_block.pop(block, None)
        if digest is not None:
            del self._block_by_hash[digest]
        self._ref_counts[block] = 1
        return block
