"""The forward pass of steps in which every request computes one token and samples the next.

Joins static buffers, the model and graphs; knows nothing about sampling. Invariant: rows compute what the
ragged path would compute for them, whatever the padding beside them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.decode_buffers import BufferSize, DecodeBuffers
from ondol.engine.decode_graphs import MAX_NUM_GRAPHS, CallRecorder, CudaRecorder, DecodeGraphs
from ondol.engine.ragged_inputs import SampledTokens
from ondol.engine.step_sizes import StepSize, StepSizes
from ondol.kernels.backend import Kernels, kernel_failures
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows, PagedKVCache
from ondol.modeling.loading import Model


class DecodeStep:
    """Runs from static buffers.

    Args:
        model: weights are in.
        cache: its last block is nobody's; padding writes there.
        kernels: what the model computes with.
        sizes: of the steps.
        vocab_size: columns of the logits.
        device: where all of it lives.
    """

    def __init__(
        self,
        model: Model,
        cache: PagedKVCache,
        kernels: Kernels,
        sizes: StepSizes,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._model = model
        self._cache = cache
        self._kernels = kernels
        size = BufferSize(
            num_rows=sizes.max_num_rows,
            max_blocks=-(-sizes.max_model_len // cache.block_size),
            block_size=cache.block_size,
            vocab_size=vocab_size,
            scratch_block=len(cache.layers[0].keys) - 1,
        )
        self._buffers = DecodeBuffers(size, device, fills_tables=kernels.reads_stale_values)
        recorder = CudaRecorder() if device.type == "cuda" else CallRecorder()
        self.graphs = DecodeGraphs(sizes, self._compute, recorder)
        scratch = torch.tensor([size.scratch_block], device=device)
        for layer in cache.layers:
            layer.clear(scratch)

    @staticmethod
    def can_run(batch: Batch) -> bool:
        """Whether every request of a batch computes one token and samples the next."""
        for item in batch.scheduled:
            if item.num_tokens != 1 or not item.samples or item.request.needs_prompt_logprobs:
                return False
        return True

    def place(
        self, items: Sequence[ScheduledRequest], sampled: SampledTokens | None
    ) -> list[ScheduledRequest]:
        """Bring the buffers up to date; the entries in the order of their rows."""
        return self._buffers.place(items, sampled)

    def run(self, placed: Sequence[ScheduledRequest]) -> tuple[Tensor, Tensor]:
        """Logits [B, vocab_size] of what was placed, and [B] int64, tokens each has before the new one.

        Both are views of buffers: the first is for the sampler to change, the next step overwrites them.
        """
        num_rows = len(placed)
        self.graphs.run(num_rows, max(item.stop for item in placed))
        return self._buffers.logits[:num_rows], self._buffers.positions[:num_rows]

    def take_sampled(self, token_ids: Tensor) -> None:
        """Make sampled tokens [B] int64 the next ones of their rows."""
        self._buffers.token_ids[: len(token_ids)].copy_(token_ids)

    def reset(self) -> None:
        """Forget everybody, after a step that failed half-way."""
        self._buffers.reset()

    @property
    def buffer_bytes(self) -> int:
        """Memory of the static buffers."""
        return self._buffers.size_bytes

    @torch.inference_mode()
    def record_ahead(self, *, count: int = MAX_NUM_GRAPHS, budget_s: float = math.inf) -> int:
        """Record graphs while there is no request; see `DecodeGraphs.record_ahead`.

        A warm-up's rows are forgotten: what is recorded is called first, and they would go on and on.

        Raises:
            KernelFailure: an operator cannot be compiled for this model, or launched.
        """
        self._buffers.reset()
        with kernel_failures(self._kernels):
            return self.graphs.record_ahead(count=count, budget_s=budget_s)

    def _compute(self, size: StepSize) -> None:
        """One step over the static buffers; leaves every row at its next position."""
        buffers, block_size = self._buffers, self._cache.block_size
        rows = slice(size.num_rows)
        positions, tables = buffers.positions[rows], buffers.block_tables[rows]
        blocks = tables.gather(1, (positions // block_size)[:, None]).squeeze(1)
        slots = blocks.to(torch.int64) * block_size + positions % block_size
        row_numbers = buffers.row_numbers[rows]
        decodes = DecodeRows(row_numbers, tables, (positions + 1).to(torch.int32), size.max_context_len)
        metadata = AttentionMetadata(slots, decodes, [])
        logits = self._model.forward(buffers.token_ids[rows], positions, self._cache, metadata, row_numbers)
        buffers.logits[rows].copy_(logits)
        positions.add_(buffers.advances[rows])
