"""Chooses the next token of each request of a batch.

Grammars, bias, penalties and bans are functions of the ids so far and are laid onto the logits here; the
choice is `kernels.sample_tokens`. Knows nothing about scheduling. Invariant: a token does not depend on what
else is in the batch, and the device is not waited for.

Order, as in transformers: grammar, bias, penalties, bans, then the kernel's.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ondol.engine.grammar import RowMasks
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.transfers import upload
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.sampling import NEVER, SamplingRows

MASK_64 = 0xFFFFFFFFFFFFFFFF
WORD_BITS = 32


class Sampler:
    """Samples one token per row.

    Args:
        vocab_size: columns of the logits.
        device: where they are.
        kernels: what chooses.
    """

    def __init__(self, vocab_size: int, device: torch.device, kernels: Kernels = REFERENCE) -> None:
        self.vocab_size = vocab_size
        self._device = device
        self._kernels = kernels
        self._row_parameters = RowParameters(device)
        self._word_bits = torch.ones(WORD_BITS, dtype=torch.int32, device=device) << torch.arange(
            WORD_BITS, dtype=torch.int32, device=device
        )

    def sample(
        self,
        logits: Tensor,
        requests: Sequence[Request],
        positions: Tensor,
        masks: RowMasks | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One token id per row, and whether its logits were finite; both stay on the device.

        Args:
            logits: [B, vocab_size] float32; changed in place.
            requests: the B requests whose next token is chosen.
            positions: [B] int64 on the device, how many tokens each request has before the new one. The host
                knows all of them.
            masks: what the rows with a grammar may choose; None if there are none.

        Returns:
            token_ids [B] int64 and is_finite [B] bool; see `kernels.sampling.sample_tokens`.
        """
        masked = None if masks is None else self._apply_masks(logits, masks)
        rows = self._row_parameters.of(requests, positions)
        if self._row_parameters.change_logits:
            if (bias := self._row_parameters.bias) is not None:
                logits.index_put_(*bias, accumulate=True)
            _apply_repetition_penalties(logits, requests)
            _apply_output_penalties(logits, requests)
            _ban_end_tokens(logits, requests)
        token_ids, is_finite = self._kernels.sample_tokens(logits, rows)
        if masked is not None:
            is_finite.index_copy_(0, *masked)
        return token_ids, is_finite

    def _apply_masks(self, logits: Tensor, masks: RowMasks) -> tuple[Tensor, Tensor]:
        """Forbid what grammars do; rows [R], and which of them were finite: a mask may forbid everything."""
        rows = upload(np.asarray(masks.rows, dtype=np.int64), self._device)
        words = upload(masks.allowed, self._device)
        is_forbidden = (words[:, :, None] & self._word_bits == 0).view(len(words), -1)[:, : self.vocab_size]
        chosen = logits.index_select(0, rows)
        was_finite = torch.isfinite(chosen.amax(dim=-1))
        logits.index_copy_(0, rows, chosen.masked_fill_(is_forbidden, NEVER))
        return rows, was_finite


class RowParameters:
    """The batch's parameters on the device; they are sent when the batch has changed, not at every step.

    Args:
        device: where they go.

    Attributes:
        change_logits: whether a request of the batch asks for a bias, a penalty or a ban.
        bias: what is added to which logits; see `Cells.on`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._params: list[SamplingParams] = []
        self._rows: SamplingRows | None = None
        self.change_logits = False
        self.bias: tuple[tuple[Tensor, Tensor], Tensor] | None = None

    def of(self, requests: Sequence[Request], positions: Tensor) -> SamplingRows:
        """Rows for `requests` at `positions` [B]."""
        params = [request.params for request in requests]
        # Parameters never change, and as long as they are held here no others can be the same object.
        is_same = len(params) == len(self._params) and all(map(operator.is_, params, self._params))
        if self._rows is None or not is_same:
            self._params, self._rows = params, _unpack(upload(_pack(params), self._device), positions)
            self.change_logits = any(map(_changes_logits, params))
            self.bias = _bias_of(params).on(self._device)
        return replace(self._rows, positions=positions)


def _changes_logits(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.reads_output or params.min_tokens)


def _unpack(packed: Tensor, positions: Tensor) -> SamplingRows:
    """Views of [8, B] int32: four rows are two int64 each, four are float32 or int32."""
    wide = packed[:4].view(-1).view(torch.int64).view(2, -1)
    floats = packed.view(torch.float32)
    return SamplingRows(
        seeds=wide[0],
        choices=wide[1],
        top_ks=packed[4],
        temperatures=floats[5],
        top_ps=floats[6],
        min_ps=floats[7],
        positions=positions,
    )


def _pack(params: Sequence[SamplingParams]) -> NDArray[np.int32]:
    packed = np.empty((8, len(params)), dtype=np.int32)
    wide = packed[:4].reshape(-1).view(np.uint64).reshape(2, -1)
    wide[0] = [each.seed & MASK_64 for each in params]
    wide[1] = [each.choice for each in params]
    packed[4] = [min(each.top_k, np.iinfo(np.int32).max) for each in params]
    floats = packed.view(np.float32)
    floats[5] = [each.temperature for each in params]
    floats[6] = [each.top_p for each in params]
    floats[7] = [each.min_p for each in params]
    return packed


class Cells:
    """Single logits of a batch, and a number for each, gathered on the host."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._ids: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float32]] = []

    def add(
        self, row: int, token_ids: Sequence[int] | NDArray[np.int64], values: NDArray[np.float32] | float
    ) -> None:
        """Cells of one row; `values` is a number for each, or one for all."""
        ids = np.asarray(token_ids, dtype=np.int64)
        self._rows.append(row)
        self._ids.append(ids)
        self._values.append(np.full(len(ids), values, dtype=np.float32))

    def on(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], Tensor] | None:
        """(rows, token ids) [N] each to index logits with, and values [N] float32; None if there are none."""
        if not self._rows:
            return None
        rows = np.repeat(self._rows, [len(ids) for ids in self._ids])
        places = upload(np.stack((rows, np.concatenate(self._ids))), device)
        return (places[0], places[1]), upload(np.concatenate(self._values), device)


def _bias_of(params: Sequence[SamplingParams]) -> Cells:
    cells = Cells()
    for row, each in enumerate(params):
        if each.logit_bias:
            token_ids, biases = zip(*each.logit_bias, strict=True)
            cells.add(row, token_ids, np.asarray(biases, dtype=np.float32))
    return cells


def _apply_repetition_penalties(logits: Tensor, requests: Sequence[Request]) -> None:
    """CTRL's, over prompt and output (arXiv:1909.05858)."""
    cells = Cells()
    for row, request in enumerate(requests):
        if request.params.repetition_penalty != 1.0:
            cells.add(row, request.count_tokens().ids, request.params.repetition_penalty)
    if (found := cells.on(logits.device)) is not None:
        places, penalties = found
        scores = logits[places]
        logits.index_put_(places, torch.where(scores < 0, scores * penalties, scores / penalties))


def _apply_output_penalties(logits: Tensor, requests: Sequence[Request]) -> None:
    """OpenAI's presence and frequency penalties, over the output."""
    cells = Cells()
    for row, request in enumerate(requests):
        params = request.params
        if (params.presence_penalty or params.frequency_penalty) and request.num_output_tokens:
            output = request.count_output_tokens()
            by_count = np.float32(params.frequency_penalty) * output.counts
            cells.add(row, output.ids, np.float32(params.presence_penalty) + by_count)
    if (found := cells.on(logits.device)) is not None:
        places, penalties = found
        logits.index_put_(places, logits[places] - penalties)


def _ban_end_tokens(logits: Tensor, requests: Sequence[Request]) -> None:
    cells = Cells()
    for row, request in enumerate(requests):
        # A grammar decides itself where an end is possible, and there it may be the only choice.
        is_early = request.num_output_tokens < request.params.min_tokens
        if is_early and request.end_token_ids and request.matcher is None:
            cells.add(row, sorted(request.end_token_ids), NEVER)
    if (found := cells.on(logits.device)) is not None:
        logits.index_put_(*found)
