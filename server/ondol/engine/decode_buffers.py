"""What a step of single tokens reads and writes, at addresses that never change.

The device advances its state by itself: a step leaves each row its sampled token and its next position, so
the host sends only what it cannot know: who came and went, and new blocks. Knows rows, nothing about models.

Invariants: a row belongs to one request as long as that is in every decode step; rows are dense, those behind
the last are padding, which never advances, computes token 0 at position 0 and writes to the scratch block,
which is nobody's. The host's mirror of a row says what the device will hold once all launches have run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ondol.engine.batch import ScheduledRequest
from ondol.engine.packing import Packing
from ondol.engine.ragged_inputs import SampledTokens
from ondol.engine.request import Request


@dataclass(frozen=True, slots=True)
class BufferSize:
    """How large the buffers are.

    Attributes:
        num_rows: rows at most, padding included.
        max_blocks: blocks of the longest request.
        block_size: tokens per block.
        vocab_size: columns of the logits.
        scratch_block: the block that padding writes to.
    """

    num_rows: int
    max_blocks: int
    block_size: int
    vocab_size: int
    scratch_block: int


@dataclass(slots=True)
class Row:
    """What the device holds of a request, or will once all launches have run.

    Attributes:
        block_ids: the request's list of blocks that the table was filled from; a request that was preempted
            has another one.
        num_blocks: how many of them the table holds.
        position: of its next token; None until it is written.
    """

    request: Request
    block_ids: list[int] | None = None
    num_blocks: int = 0
    position: int | None = None


class Words:
    """Single words to write: places in a flat int32 tensor, each at most once, and their values."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.values: list[int] = []

    def put(self, first_place: int, values: Sequence[int]) -> None:
        """Write a run of words."""
        self.places += range(first_place, first_place + len(values))
        self.values += values


class DecodeBuffers:
    """Static tensors and the host's mirror of them.

    Args:
        size: rows and columns.
        device: where they are.
        fills_tables: the attention reads a table's entries behind the context, so these must be blocks of the
            row's own.

    Attributes:
        token_ids: [num_rows] int64, each row's next token.
        positions: [num_rows] int64, its position.
        advances: [num_rows] int64, 1 where there is a request and 0 in padding.
        block_tables: [num_rows, max_blocks] int32.
        row_numbers: [num_rows] int64, 0, 1, 2, ...
        logits: [num_rows, vocab_size] float32.
    """

    def __init__(self, size: BufferSize, device: torch.device, *, fills_tables: bool) -> None:
        self.size = size
        self._device = device
        self._fills_tables = fills_tables
        num_rows = size.num_rows
        # One tensor, so that any of it can be changed by one copy and one scatter. An int64 is two words, the
        # lower one first; all values here are below 2**31, so the upper one stays 0.
        self._first_position, self._first_advance = 2 * num_rows, 4 * num_rows
        self._first_table = 6 * num_rows
        self._words = torch.zeros(
            self._first_table + num_rows * size.max_blocks, dtype=torch.int32, device=device
        )
        wide = self._words[: self._first_table].view(torch.int64)
        self.token_ids, self.positions, self.advances = wide.view(3, num_rows).unbind()
        self.block_tables = self._words[self._first_table :].view(num_rows, size.max_blocks)
        self.block_tables.fill_(size.scratch_block)
        self.row_numbers = torch.arange(num_rows, dtype=torch.int64, device=device)
        self.logits = torch.zeros((num_rows, size.vocab_size), dtype=torch.float32, device=device)
        self._rows: list[Row] = []
        self._held: set[Request] = set()

    @property
    def size_bytes(self) -> int:
        """Memory of all of them."""
        return self._words.nbytes + self.row_numbers.nbytes + self.logits.nbytes

    def reset(self) -> None:
        """Make all rows padding, for the mirror cannot be trusted after a step that failed half-way."""
        self._rows = []
        self._held = set()
        self._words.zero_()
        self.block_tables.fill_(self.size.scratch_block)

    def place(
        self, items: Sequence[ScheduledRequest], sampled: SampledTokens | None
    ) -> list[ScheduledRequest]:
        """Give every entry a row and bring the device's state up to date.

        Args:
            items: entries of one token each, of different requests.
            sampled: tokens of the launch before, which pending ones are among.

        Returns:
            The entries by row.
        """
        by_request = {item.request: item for item in items}
        words = Words()
        self._arrange(by_request, words)
        placed = [by_request[row.request] for row in self._rows]
        targets: list[int] = []
        sources: list[int] = []
        for number, (row, item) in enumerate(zip(self._rows, placed, strict=True)):
            block_ids = item.request.block_ids
            if row.block_ids is not block_ids or row.num_blocks != len(block_ids):
                self._update_table(number, row, words)
            if row.position != item.start:
                words.put(self._first_position + 2 * number, (item.start,))
                known = item.request.token_ids
                if item.start < len(known):
                    words.put(2 * number, (known[item.start],))
                else:
                    assert sampled is not None, "a pending token was sampled by the launch before"
                    targets.append(number)
                    sources.append(sampled.places[item.request])
            row.position = item.stop
        self._send(words, targets, sources, sampled)
        return placed

    def _arrange(self, items: Mapping[Request, ScheduledRequest], words: Words) -> None:
        """Keep rows where they are; fill the gaps from behind, then with newcomers; pad what is left over."""
        held, num_before = self._held, len(self._rows)
        if items.keys() == held:
            return
        self._held = set(items)
        kept: list[Row | None] = [row if row.request in items else None for row in self._rows]
        moved = [row.request for row in kept[len(items) :] if row is not None]
        missing = iter([*moved, *(request for request in items if request not in held)])
        kept = [*kept[: len(items)], *[None] * (len(items) - num_before)]
        self._rows = [Row(next(missing)) if row is None else row for row in kept]
        for number in range(len(items), num_before):
            self._pad(number, words)

    def _pad(self, number: int, words: Words) -> None:
        for first in (0, self._first_position, self._first_advance):
            words.put(first + 2 * number, (0,))
        scratch = [self.size.scratch_block]
        num_entries = self.size.max_blocks if self._fills_tables else 1
        words.put(self._first_table + number * self.size.max_blocks, scratch * num_entries)

    def _update_table(self, number: int, row: Row, words: Words) -> None:
        block_ids = row.request.block_ids
        first_place = self._first_table + number * self.size.max_blocks
        if row.block_ids is not block_ids:
            entries = block_ids
            if self._fills_tables:
                entries = block_ids + block_ids[-1:] * (self.size.max_blocks - len(block_ids))
            words.put(first_place, entries)
            words.put(self._first_advance + 2 * number, (1,))
            row.block_ids, row.position = block_ids, None
        else:
            words.put(first_place + row.num_blocks, block_ids[row.num_blocks :])
        row.num_blocks = len(block_ids)

    def _send(
        self, words: Words, targets: list[int], sources: list[int], sampled: SampledTokens | None
    ) -> None:
        """One copy, then the scatters; nothing at all where nothing has changed."""
        if not words.places:
            return
        packing = Packing()
        packing.add(words.places)
        packing.add(np.array(words.values, dtype=np.int32))
        packing.add(targets)
        packing.add(sources)
        places, values, target_rows, source_places = packing.send(self._device)
        # Read before anything is written: these may be the same rows.
        tokens = None if sampled is None or not targets else sampled.token_ids[source_places]
        self._words.index_copy_(0, places, values)
        if tokens is not None:
            self.token_ids.index_copy_(0, target_rows, tokens)
