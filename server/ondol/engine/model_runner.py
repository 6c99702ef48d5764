"""Turns a batch into tensors, runs the model and samples, without waiting for the device.

The only part of the engine above which torch is unknown. Knows nothing about scheduling. Invariants: a step's
work is queued behind that of the step before, whose tokens the model takes from the device where the host
does not know them; a step is sampled before the next one is launched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ondol.engine.batch import Batch, StepResult
from ondol.engine.decode_step import DecodeStep
from ondol.engine.grammar import MaskFiller
from ondol.engine.launched_step import (
    LaunchedStep,
    PromptLogprobs,
    SampledLogprobs,
    SampledStep,
    mark_missing,
)
from ondol.engine.logprobs import compute_logprobs
from ondol.engine.ragged_inputs import SampledTokens, begun_blocks, build_ragged_inputs
from ondol.engine.request import Request
from ondol.engine.sampler import Sampler
from ondol.engine.transfers import upload
from ondol.kernels.backend import REFERENCE, Kernels, kernel_failures
from ondol.kernels.paged_attention import PagedKVCache
from ondol.modeling.loading import Model


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the model has computed of a batch.

    Attributes:
        requests: the B that sample, by row.
        logits: [B, vocab_size] float32; the sampler may change them.
        num_known: [B] int64, tokens that each has before the new one.
        decode_step: the static buffers that the batch ran from, if it did.
        prompts: log-probabilities of prompts, where somebody asks.
    """

    requests: Sequence[Request]
    logits: Tensor
    num_known: Tensor
    decode_step: DecodeStep | None = None
    prompts: PromptLogprobs | None = None


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
        self._masks = MaskFiller()
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self.device = device
        self.decode_step = decode_step
        # Tokens of the newest launch; None if that failed, for then nobody's are pending.
        self._sampled: SampledTokens | None = None

    @torch.inference_mode()
    def launch(self, batch: Batch) -> LaunchedStep:
        """Queue the model's work on a batch behind the launches before; see `core.Runner`.

        Raises:
            KernelFailure: an operator cannot be compiled for this model, or launched.
        """
        sampled, self._sampled = self._sampled, None
        decode_step = self.decode_step
        if decode_step is not None and sampled is None:
            decode_step.reset()
        if self._kernels.reads_stale_values:
            self._clear(begun_blocks(batch, self._cache.block_size))
        with kernel_failures(self._kernels):
            if decode_step is not None and decode_step.can_run(batch):
                placed = decode_step.place(batch.sampling(), sampled)
                requests = [item.request for item in placed]
                forwarded = Forwarded(requests, *decode_step.run(placed), decode_step)
            else:
                forwarded = self._run_ragged(batch, sampled)
        return LaunchedStep(partial(self._sample, batch, forwarded))

    def run(self, batch: Batch) -> StepResult:
        """Compute a batch from beginning to end."""
        launched = self.launch(batch)
        launched.sample()
        return launched.collect()

    def _run_ragged(self, batch: Batch, sampled: SampledTokens | None) -> Forwarded:
        inputs = build_ragged_inputs(batch, self._cache.block_size, self.device, sampled)
        logits = self._model.forward(
            inputs.token_ids, inputs.positions, self._cache, inputs.metadata, inputs.logit_rows
        )
        requests = [item.request for item in batch.sampling()]
        num_rows = len(requests)
        prompts = _prompt_logprobs(batch, logits[num_rows:], inputs.prompt_token_ids, self._kernels)
        return Forwarded(requests, logits[:num_rows], inputs.num_known, prompts=prompts)

    @torch.inference_mode()
    def _sample(self, batch: Batch, forwarded: Forwarded) -> SampledStep:
        """Queue the choice of the tokens, and the way back of everything that is wanted."""
        requests, logits = forwarded.requests, forwarded.logits
        # Copied before the sampler changes them, and only where somebody asks.
        asking = [row for row, request in enumerate(requests) if request.params.logprobs is not None]
        raw_logits = logits[self._upload(asking)] if asking else None
        # Who turned out to have ended in the step before has no next token.
        masks = self._masks.fill([request.matcher if request.is_open else None for request in requests])
        token_ids, is_finite = forwarded.num_known, forwarded.num_known.to(torch.bool)
        if requests:
            with kernel_failures(self._kernels):
                token_ids, is_finite = self._sampler.sample(logits, requests, forwarded.num_known, masks)
        if forwarded.decode_step is not None:
            forwarded.decode_step.take_sampled(token_ids)
        places = {request: row for row, request in enumerate(requests)}
        self._sampled = SampledTokens(token_ids, places)
        return SampledStep(
            requests,
            [places[item.request] for item in batch.sampling()],
            mark_missing(token_ids, is_finite),
            {} if masks is None else _grammar_errors(requests),
            self._sampled_logprobs(raw_logits, asking, requests, token_ids),
            forwarded.prompts,
        )

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


def _prompt_logprobs(
    batch: Batch, logits: Tensor, prompt_token_ids: Tensor, kernels: Kernels
) -> PromptLogprobs | None:
    """Of the prompt tokens [P] int64 that were reached, by their logits [P, vocab_size]; None if P is 0."""
    if not len(logits):
        return None
    told = [(item.request, item.prompt_logprob_positions()) for item in batch.scheduled]
    token_ids = [
        (request, request.token_ids[positions.start + 1 : positions.stop + 1])
        for request, positions in told
        if positions
    ]
    num_top = max(request.params.prompt_logprobs or 0 for request, _ in token_ids)
    is_finite = torch.isfinite(logits.amax(dim=-1))
    found = compute_logprobs(logits, prompt_token_ids, num_top, kernels.logsumexp)
    return PromptLogprobs(token_ids, is_finite, found)
