"""Turns a batch into tensors, runs the model and samples.

The only part of the engine above which torch is unknown. Knows nothing about scheduling.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ondol.engine.batch import Batch, ScheduledRequest, StepResult
from ondol.engine.grammar import MaskFiller, RowMasks
from ondol.engine.logprobs import token_logprobs
from ondol.engine.messages import TokenLogprob
from ondol.engine.request import Request
from ondol.engine.sampler import Sampler
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows, PagedKVCache, PrefillSpan
from ondol.modeling.loading import Model

NOT_FINITE = "the model computed logits that are not finite"


class ModelRunner:
    """Runs batches on one device.

    Args:
        model: weights are in.
        cache: the paged cache, all of it.
        sampler: for the model's vocabulary.
        device: where all three live.
        kernels: what the model computes with.
    """

    def __init__(
        self,
        model: Model,
        cache: PagedKVCache,
        sampler: Sampler,
        device: torch.device,
        kernels: Kernels = REFERENCE,
    ) -> None:
        self._kernels = kernels
        self._masks = MaskFiller(sampler.vocab_size)
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._device = device

    @torch.inference_mode()
    def run(self, batch: Batch) -> StepResult:
        """Compute a batch."""
        requests = [item.request for item in batch.sampling()]
        pending_masks = self._masks.start([request.matcher for request in requests])
        logits = self._forward(batch)
        prompt_logits = logits[len(requests) :]
        logits = logits[: len(requests)]
        # Copied before the sampler changes them, and only where somebody asks.
        asking = [row for row, request in enumerate(requests) if request.params.logprobs is not None]
        raw_logits = logits[asking] if asking else None
        masks = None if pending_masks is None else pending_masks.result()
        token_ids = self._sample(logits, requests, masks) if requests else []
        errors = {
            request.request_id: NOT_FINITE
            for request, token_id in zip(requests, token_ids, strict=True)
            if token_id is None
        }
        errors |= _grammar_errors(requests)
        logprobs = {}
        if raw_logits is not None:
            chosen = [(requests[row], token_ids[row]) for row in asking]
            logprobs = _chosen_logprobs(raw_logits, chosen)
        prompt_logprobs = {}
        if len(prompt_logits):
            prompt_logprobs = _prompt_logprobs(prompt_logits, batch, errors)
        return StepResult(token_ids, errors, logprobs, prompt_logprobs)

    def _sample(
        self, logits: Tensor, requests: Sequence[Request], masks: RowMasks | None
    ) -> list[int | None]:
        """One token id per row; None where the logits were not finite."""
        positions = self._tensor([request.num_tokens for request in requests])
        token_ids, is_finite = self._sampler.sample(logits, requests, positions, masks)
        return [
            token_id if ok else None
            for token_id, ok in zip(token_ids.tolist(), is_finite.tolist(), strict=True)
        ]

    def _forward(self, batch: Batch) -> Tensor:
        """Logits of the rows that sample, then of those whose prompt's log-probabilities are wanted."""
        token_ids: list[int] = []
        positions: list[int] = []
        sample_rows: list[int] = []
        prompt_rows: list[int] = []
        for item in batch.scheduled:
            first_row = len(token_ids) - item.start
            token_ids.extend(item.request.token_ids[item.start : item.stop])
            positions.extend(range(item.start, item.stop))
            if item.samples:
                sample_rows.append(len(token_ids) - 1)
            prompt_rows.extend(first_row + position for position in item.prompt_logprob_positions())
        if self._kernels.reads_stale_values:
            self._clear_begun_blocks(batch)
        return self._model.forward(
            self._tensor(token_ids),
            self._tensor(positions),
            self._cache,
            self._build_metadata(batch),
            self._tensor(sample_rows + prompt_rows),
        )

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
            for layer in self._cache.layers:
                layer.clear(index)

    def _build_metadata(self, batch: Batch) -> AttentionMetadata:
        block_size = self._cache.block_size
        slots: list[int] = []
        decodes: list[tuple[int, ScheduledRequest]] = []
        prefills: list[PrefillSpan] = []
        for item in batch.scheduled:
            if item.num_tokens == 1:
                decodes.append((len(slots), item))
            else:
                block_ids = self._tensor(item.request.block_ids[: self._num_blocks(item.stop)])
                prefills.append(PrefillSpan(len(slots), item.num_tokens, item.start, block_ids))
            block_table = item.request.block_ids
            slots.extend(
                block_table[position // block_size] * block_size + position % block_size
                for position in range(item.start, item.stop)
            )
        return AttentionMetadata(self._tensor(slots), self._decode_rows(decodes), prefills)

    def _decode_rows(self, decodes: list[tuple[int, ScheduledRequest]]) -> DecodeRows | None:
        if not decodes:
            return None
        max_context_len = max(item.stop for _, item in decodes)
        tables = np.empty((len(decodes), self._num_blocks(max_context_len)), dtype=np.int32)
        for table, (_, item) in zip(tables, decodes, strict=True):
            own = item.request.block_ids[: self._num_blocks(item.stop)]
            table[: len(own)] = own
            table[len(own) :] = own[-1]
        return DecodeRows(
            rows=self._tensor([row for row, _ in decodes]),
            block_tables=torch.from_numpy(tables).to(self._device),
            context_lens=torch.tensor([item.stop for _, item in decodes], dtype=torch.int32).to(self._device),
            max_context_len=max_context_len,
        )

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._cache.block_size)

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _grammar_errors(requests: Sequence[Request]) -> dict[str, str]:
    """Requests whose grammar could not tell what may come next."""
    return {
        request.request_id: f"the grammar could not be followed further: {request.matcher.error}"
        for request in requests
        if request.matcher is not None and request.matcher.error is not None
    }


def _chosen_logprobs(
    raw_logits: Tensor, chosen: Sequence[tuple[Request, int | None]]
) -> dict[str, TokenLogprob]:
    """Of the sampled tokens; a row without one holds no finite logits, and its request ends."""
    found = token_logprobs(
        raw_logits,
        [token_id or 0 for _, token_id in chosen],
        [request.params.logprobs or 0 for request, _ in chosen],
    )
    return {
        request.request_id: logprob
        for (request, token_id), logprob in zip(chosen, found, strict=True)
        if token_id is not None
    }


def _prompt_logprobs(logits: Tensor, batch: Batch, errors: dict[str, str]) -> dict[str, list[TokenLogprob]]:
    """Of the prompt tokens that this step reached; adds to `errors` whose logits are not finite."""
    found: dict[str, list[TokenLogprob]] = {}
    start = 0
    for item in batch.scheduled:
        request, positions = item.request, item.prompt_logprob_positions()
        rows = logits[start : start + len(positions)]
        start += len(positions)
        if not positions:
            continue
        if not bool(torch.isfinite(rows.amax(dim=-1)).all()):
            errors[request.request_id] = NOT_FINITE
            continue
        token_ids = request.token_ids[positions.start + 1 : positions.stop + 1]
        num_top = [request.params.prompt_logprobs or 0] * len(token_ids)
        found[request.request_id] = token_logprobs(rows, token_ids, num_top)
    return found
