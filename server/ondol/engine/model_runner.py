"""Turns a batch into tensors, runs the model and samples, without waiting for the device.

The only part of the engine above which torch is unknown. Knows nothing about scheduling. Invariant: a step's
work is queued behind that of the step before, whose tokens it takes from the device where the host does not
know them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.decode_step import DecodeStep
from ondol.engine.grammar import MaskFiller, RowMasks
from ondol.engine.launched_step import LaunchedStep, PromptLogprobs, SampledLogprobs, mark_missing
from ondol.engine.logprobs import compute_logprobs
from ondol.engine.ragged_inputs import SampledTokens, begun_blocks, build_ragged_inputs
from ondol.engine.request import Request
from ondol.engine.sampler import Sampler
from ondol.engine.transfers import upload
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.paged_attention import PagedKVCache
from ondol.modeling.loading import Model


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the model has computed of a batch.

    Attributes:
        logits: [B, vocab_size] float32, of the requests that sample; the sampler may change them.
        num_known: [B] int64, tokens that each has before the new one.
        prompt_logits: [P, vocab_size] float32, of rows that tell of a prompt's tokens; None if none do.
        prompt_token_ids: [P] int64, those tokens; likewise.
    """

    logits: Tensor
    num_known: Tensor
    prompt_logits: Tensor | None = None
    prompt_token_ids: Tensor | None = None


class ModelRunner:
    """Runs batches on one device.

    Args:
        model: weights are in.
        cache: the paged cache, all of it.
        sampler: for the model's vocabulary.
        device: where all three live.
        kernels: what the model computes with.
        decode_step: runs the batches in which everybody decodes; None treats them as all others. May be
            changed between two steps.
    """

    def __init__(
        self,
        model: Model,
        cache: PagedKVCache,
        sampler: Sampler,
        device: torch.device,
        kernels: Kernels = REFERENCE,
        decode_step: DecodeStep | None = None,
    ) -> None:
        self._kernels = kernels
        self._masks = MaskFiller(sampler.vocab_size)
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self.device = device
        self.decode_step = decode_step
        # Tokens of the newest launch; None if that failed, for then nobody's are pending.
        self._sampled: SampledTokens | None = None

    @torch.inference_mode()
    def launch(self, batch: Batch) -> LaunchedStep:
        """Queue a batch's work behind the launches before; see `core.Runner`."""
        sampled, self._sampled = self._sampled, None
        decode_step = self.decode_step
        if decode_step is not None and sampled is None:
            decode_step.reset()
        items: Sequence[ScheduledRequest] = batch.sampling()
        if decode_step is not None and decode_step.can_run(batch):
            items = decode_step.place(items, sampled)
        else:
            decode_step = None
        requests = [item.request for item in items]
        pending_masks = self._masks.start([request.matcher for request in requests])
        if self._kernels.reads_stale_values:
            self._clear(begun_blocks(batch, self._cache.block_size))
        if decode_step is None:
            done = self._run_ragged(batch, len(items), sampled)
        else:
            done = Forwarded(*decode_step.run(items))
        # Copied before the sampler changes them, and only where somebody asks.
        asking = [row for row, request in enumerate(requests) if request.params.logprobs is not None]
        raw_logits = done.logits[self._upload(asking)] if asking else None
        masks = None if pending_masks is None else pending_masks.result()
        token_ids, is_finite = self._sample(done, requests, masks)
        if decode_step is not None:
            decode_step.take_sampled(token_ids)
        places = {request: row for row, request in enumerate(requests)}
        launched = LaunchedStep(
            requests,
            [places[item.request] for item in batch.sampling()],
            mark_missing(token_ids, is_finite),
            {} if masks is None else _grammar_errors(requests),
            self._sampled_logprobs(raw_logits, asking, requests, token_ids),
            _prompt_logprobs(batch, done, self._kernels),
        )
        self._sampled = SampledTokens(token_ids, places)
        return launched

    def _run_ragged(self, batch: Batch, num_sampling: int, sampled: SampledTokens | None) -> Forwarded:
        inputs = build_ragged_inputs(batch, self._cache.block_size, self.device, sampled)
        logits = self._model.forward(
            inputs.token_ids, inputs.positions, self._cache, inputs.metadata, inputs.logit_rows
        )
        prompt_logits = logits[num_sampling:] if len(logits) > num_sampling else None
        return Forwarded(logits[:num_sampling], inputs.num_known, prompt_logits, inputs.prompt_token_ids)

    def _sample(
        self, done: Forwarded, requests: Sequence[Request], masks: RowMasks | None
    ) -> tuple[Tensor, Tensor]:
        """Token ids [B] int64, and whether their logits were finite [B] bool."""
        if not requests:
            return done.num_known, done.num_known.to(torch.bool)
        return self._sampler.sample(done.logits, requests, done.num_known, masks)

    def _sampled_logprobs(
        self,
        raw_logits: Tensor | None,
        rows: Sequence[int],
        requests: Sequence[Request],
        token_ids: Tensor,
    ) -> SampledLogprobs | None:
        if raw_logits is None:
            return None
        num_top = [requests[row].params.logprobs or 0 for row in rows]
        found = compute_logprobs(
            raw_logits, token_ids[self._upload(rows)], max(num_top), self._kernels.logsumexp
        )
        return SampledLogprobs(rows, num_top, found)

    def _clear(self, blocks: Sequence[int]) -> None:
        if blocks:
            index = self._upload(blocks)
            for layer in self._cache.layers:
                layer.clear(index)

    def _upload(self, values: Sequence[int]) -> Tensor:
        return upload(np.asarray(values, dtype=np.int64), self.device)


def _grammar_errors(requests: Sequence[Request]) -> dict[str, str]:
    """Requests whose grammar could not tell what may come next."""
    return {
        request.request_id: f"the grammar could not be followed further: {request.matcher.error}"
        for request in requests
        if request.matcher is not None and request.matcher.error is not None
    }


def _prompt_logprobs(batch: Batch, done: Forwarded, kernels: Kernels) -> PromptLogprobs | None:
    """Of the prompt tokens that this step reached; None if nobody asks."""
    if done.prompt_logits is None or done.prompt_token_ids is None:
        return None
    told = [(item.request, item.prompt_logprob_positions()) for item in batch.scheduled]
    token_ids = [
        (request, request.token_ids[positions.start + 1 : positions.stop + 1])
        for request, positions in told
        if positions
    ]
    num_top = max(request.params.prompt_logprobs or 0 for request, _ in token_ids)
    is_finite = torch.isfinite(done.prompt_logits.amax(dim=-1))
    found = compute_logprobs(done.prompt_logits, done.prompt_token_ids, num_top, kernels.logsumexp)
    return PromptLogprobs(token_ids, is_finite, found)
