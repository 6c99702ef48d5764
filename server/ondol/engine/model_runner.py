"""Turns a batch into tensors, runs the model and samples.

The only part of the engine above which torch is unknown. Knows nothing about scheduling.
"""

import torch
from torch import Tensor

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.sampler import Sampler
from ondol.kernels.paged_attention import AttentionMetadata, DecodeGroup, PagedKVCache, PrefillSpan
from ondol.modeling.loading import Model


class ModelRunner:
    """Runs batches on one device.

    Args:
        model: weights are in.
        cache: the paged cache, all of it.
        sampler: for the model's vocabulary.
        device: where all three live.
    """

    def __init__(self, model: Model, cache: PagedKVCache, sampler: Sampler, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._device = device

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[int | None]:
        """Compute a batch; one token id per sampling entry, None where its logits were not finite."""
        token_ids: list[int] = []
        positions: list[int] = []
        sample_rows: list[int] = []
        for item in batch.scheduled:
            token_ids.extend(item.request.token_ids[item.start : item.stop])
            positions.extend(range(item.start, item.stop))
            if item.samples:
                sample_rows.append(len(token_ids) - 1)
        self._clear_begun_blocks(batch)
        metadata = self._build_metadata(batch)
        logits = self._model.forward(
            self._tensor(token_ids),
            self._tensor(positions),
            self._cache,
            metadata,
            self._tensor(sample_rows),
        )
        sampling = batch.sampling()
        if not sampling:
            return []
        return self._sampler.sample(logits, [item.request for item in sampling])

    def _clear_begun_blocks(self, batch: Batch) -> None:
        """Zero the blocks that this step begins and does not fill.

        What a former owner left behind the last token is masked, but 0 * NaN is NaN: one request whose
        values overflowed would poison the block's next owners.
        """
        block_size = self._cache.block_size
        begun = [
            item.request.block_ids[item.stop // block_size]
            for item in batch.scheduled
            if item.stop % block_size and item.stop - item.stop % block_size >= item.start
        ]
        if begun:
            index = self._tensor(begun)
            for layer in (*self._cache.keys, *self._cache.values):
                layer.index_fill_(0, index, 0.0)

    def _build_metadata(self, batch: Batch) -> AttentionMetadata:
        block_size = self._cache.block_size
        slots: list[int] = []
        decodes: list[tuple[int, ScheduledRequest]] = []
        prefills: list[PrefillSpan] = []
        for item in batch.scheduled:
            if item.num_tokens == 1:
                decodes.append((len(slots), item))
            else:
                num_blocks = -(-item.stop // block_size)
                block_ids = self._tensor(item.request.block_ids[:num_blocks])
                prefills.append(PrefillSpan(len(slots), item.num_tokens, item.start, block_ids))
            block_table = item.request.block_ids
            slots.extend(
                block_table[position // block_size] * block_size + position % block_size
                for position in range(item.start, item.stop)
            )
        return AttentionMetadata(self._tensor(slots), self._group_decodes(decodes), prefills)

    def _group_decodes(self, decodes: list[tuple[int, ScheduledRequest]]) -> list[DecodeGroup]:
        """Group rows whose context lengths differ at most twofold, so that padding stays bounded."""
        groups: list[list[tuple[int, ScheduledRequest]]] = []
        for entry in sorted(decodes, key=lambda entry: entry[1].stop):
            if not groups or entry[1].stop > 2 * groups[-1][0][1].stop:
                groups.append([])
            groups[-1].append(entry)
        return [self._build_group(group) for group in groups]

    def _build_group(self, group: list[tuple[int, ScheduledRequest]]) -> DecodeGroup:
        num_blocks = -(-group[-1][1].stop // self._cache.block_size)
        tables = []
        for _, item in group:
            # Padded with a block of its own: another request's may hold NaN, which no mask hides.
            own = item.request.block_ids[: -(-item.stop // self._cache.block_size)]
            tables.append(own + own[-1:] * (num_blocks - len(own)))
        return DecodeGroup(
            rows=self._tensor([row for row, _ in group]),
            block_tables=torch.tensor(tables, dtype=torch.int64, device=self._device),
            context_lens=self._tensor([item.stop for _, item in group]),
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
