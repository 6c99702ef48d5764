"""A batch as flat tensors: what one forward pass over requests of any length reads.

Knows batches and blocks, nothing about models. Invariant: everything goes to the device in one copy, and the
device is not waited for; tokens that it alone knows are put in there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.packing import Packing
from ondol.engine.request import Request
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows, PrefillSpan


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """The tokens of the newest launch, on the device.

    Attributes:
        token_ids: [N] int64.
        places: where each request's token is in them.
    """

    token_ids: Tensor
    places: Mapping[Request, int]


@dataclass(frozen=True, slots=True)
class RaggedInputs:
    """T rows; see `modeling.loading.Model.forward`.

    Attributes:
        token_ids, positions: [T] int64.
        metadata: the layout.
        logit_rows: [B + P] int64, rows that sample, then rows that tell of a prompt's tokens.
        num_known: [B] int64, tokens that each sampling request has before the new one.
        prompt_token_ids: [P] int64, the tokens that are told of.
    """

    token_ids: Tensor
    positions: Tensor
    metadata: AttentionMetadata
    logit_rows: Tensor
    num_known: Tensor
    prompt_token_ids: Tensor


@dataclass(slots=True)
class _Rows:
    """The flat rows of a batch, as they are collected."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    sample_rows: list[int] = field(default_factory=list)
    prompt_rows: list[int] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)
    # Rows whose token is pending, and its place among those of the launch before.
    pending_rows: list[int] = field(default_factory=list)
    pending_places: list[int] = field(default_factory=list)

    def add(self, item: ScheduledRequest, block_size: int, sampled: SampledTokens | None) -> None:
        """Add the rows of one entry."""
        request, table = item.request, item.request.block_ids
        first_row = len(self.token_ids) - item.start
        self.token_ids += request.token_ids[item.start : item.stop]
        self.positions += range(item.start, item.stop)
        self.slots += (
            table[position // block_size] * block_size + position % block_size
            for position in range(item.start, item.stop)
        )
        if len(self.token_ids) < len(self.positions):
            assert sampled is not None, "a pending token was sampled by the launch before"
            self.pending_rows.append(len(self.token_ids))
            self.pending_places.append(sampled.places[request])
            self.token_ids.append(0)
        if item.samples:
            self.sample_rows.append(len(self.token_ids) - 1)
        told = item.prompt_logprob_positions()
        self.prompt_rows += (first_row + position for position in told)
        self.prompt_token_ids += request.token_ids[told.start + 1 : told.stop + 1] if told else ()


def build_ragged_inputs(
    batch: Batch, block_size: int, device: torch.device, sampled: SampledTokens | None
) -> RaggedInputs:
    """The tensors of a batch.

    Args:
        batch: just scheduled.
        block_size: tokens per block.
        device: where the tensors go.
        sampled: tokens of the launch before, which this batch's pending ones are among.
    """
    rows = _Rows()
    decodes: list[tuple[int, ScheduledRequest]] = []
    prefills: list[tuple[int, ScheduledRequest]] = []
    for item in batch.scheduled:
        (decodes if item.num_tokens == 1 else prefills).append((len(rows.token_ids), item))
        rows.add(item, block_size, sampled)
    packing = Packing()
    flat = [
        packing.add(values)
        for values in (
            *(rows.token_ids, rows.positions, rows.slots, rows.sample_rows + rows.prompt_rows),
            *([item.stop for item in batch.sampling()], rows.prompt_token_ids),
            *(rows.pending_rows, rows.pending_places),
        )
    ]
    tables = [packing.add(item.request.block_ids[: -(-item.stop // block_size)]) for _, item in prefills]
    first_decode = packing.add([row for row, _ in decodes])
    packing.add(_block_tables([item for _, item in decodes], block_size))
    packing.add(np.array([item.stop for _, item in decodes], dtype=np.int32))
    sent = packing.send(device)
    token_ids, positions, slots, logit_rows, num_known, prompt_token_ids, *pending = (
        sent[place] for place in flat
    )
    if rows.pending_rows:
        assert sampled is not None, "a pending token was sampled by the launch before"
        token_ids.index_copy_(0, pending[0], sampled.token_ids[pending[1]])
    decode_rows = None
    if decodes:
        decode_row_numbers, block_tables, context_lens = sent[first_decode:]
        max_context_len = max(item.stop for _, item in decodes)
        decode_rows = DecodeRows(decode_row_numbers, block_tables, context_lens, max_context_len)
    spans = [
        PrefillSpan(row, item.num_tokens, item.start, sent[place])
        for (row, item), place in zip(prefills, tables, strict=True)
    ]
    metadata = AttentionMetadata(slots, decode_rows, spans)
    return RaggedInputs(token_ids, positions, metadata, logit_rows, num_known, prompt_token_ids)


def begun_blocks(batch: Batch, block_size: int) -> list[int]:
    """The blocks that a step begins and does not fill.

    What a former owner left behind the last token is masked, but 0 * NaN is NaN: one request whose values
    overflowed would poison the block's next owners, if attention reads it.
    """
    return [
        item.request.block_ids[item.stop // block_size]
        for item in batch.scheduled
        if item.stop % block_size and item.stop - item.stop % block_size >= item.start
    ]


def _block_tables(decodes: list[ScheduledRequest], block_size: int) -> NDArray[np.int32]:
    """[D, blocks of the longest] int32; each row is filled up with a block of its own."""
    num_blocks = [-(-item.stop // block_size) for item in decodes]
    tables = np.empty((len(decodes), max(num_blocks, default=0)), dtype=np.int32)
    for table, item, count in zip(tables, decodes, num_blocks, strict=True):
        table[:count] = item.request.block_ids[:count]
        table[count:] = table[count - 1]
    return tables
