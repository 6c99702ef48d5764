"""Decides, step by step, whose tokens are computed.

There are no phases: every running request catches up its computed tokens with its known ones, by
one (decode) or by a chunk (prefill), within one token budget. Decodes come first, so that a long
prompt delays nobody by more than a chunk. Knows nothing about tensors, sockets or text.

Invariants: a request is in exactly one of waiting, running or gone; running is ordered by
admission; all known tokens of a running prefill have blocks, so only decodes ask for more, and when
none is left the last admitted request gives its blocks up and is recomputed later. The first
running request can always proceed, therefore every request ends.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.block_manager import BlockManager
from ondol.engine.messages import TokenOutput
from ondol.engine.request import Request

# Share of the pool that an admission leaves free for the growth of those already running.
WATERMARK = 0.01


class Scheduler:
    """Continuous batching over a paged cache.

    Args:
        block_manager: the pool.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: token budget of a step.
    """

    def __init__(self, block_manager: BlockManager, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self.block_manager = block_manager
        # A step must be able to decode every running request.
        self.max_num_seqs = min(max_num_seqs, max_num_batched_tokens)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; its prompt and completion must fit the pool (checked by the core)."""
        self.waiting.append(request)

    def abort(self, request_id: str) -> bool:
        """Forget a request and free its blocks now; False if it is not open."""
        request = next((r for r in (*self.running, *self.waiting) if r.request_id == request_id), None)
        if request is None:
            return False
        self._remove(request)
        return True

    def schedule(self) -> Batch:
        """Choose the next step's work: decodes, then running prefills, then admissions."""
        scheduled = self._schedule_decodes()
        budget = self.max_num_batched_tokens - len(scheduled)
        for request in self.running:
            if request.num_uncomputed_tokens > 1 and budget > 0:
                budget -= self._schedule_chunk(request, budget, scheduled)
        while budget > 0 and self._can_admit_next():
            request = self.waiting.popleft()
            self.block_manager.admit(request)
            self.running.append(request)
            budget -= self._schedule_chunk(request, budget, scheduled)
        return Batch(tuple(scheduled))

    def update(self, batch: Batch, token_ids: Sequence[int | None]) -> list[TokenOutput]:
        """Take in a step's result.

        Args:
            batch: what was computed.
            token_ids: one sampled id per entry of `batch.sampling()`; None where the logits were
                not finite, which ends that request alone with an error.
        """
        for item in batch.scheduled:
            item.request.num_computed_tokens = item.stop
            self.block_manager.register_computed(item.request)
        sampling = batch.sampling()
        return [
            self._take_token(item.request, token) for item, token in zip(sampling, token_ids, strict=True)
        ]

    def fail(self, requests: Iterable[Request], reason: str) -> list[TokenOutput]:
        """End requests with an error; their neighbours go on."""
        outputs = []
        for request in requests:
            self._remove(request)
            outputs.append(_error_output(request, reason))
        return outputs

    def _schedule_decodes(self) -> list[ScheduledRequest]:
        scheduled: list[ScheduledRequest] = []
        index = 0
        while index < len(self.running):
            request = self.running[index]
            if request.num_uncomputed_tokens == 1 and self._make_room(request):
                self.block_manager.append(request)
                scheduled.append(ScheduledRequest(request, request.num_computed_tokens, 1))
            # If the request had to preempt itself, it was the last one and the loop ends.
            index += 1
        return scheduled

    def _make_room(self, request: Request) -> bool:
        """Preempt from the end of the running list until the request fits; False if it went itself."""
        while not self.block_manager.can_append(request):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.block_manager.free(request)
        self.waiting.appendleft(request)
        self.num_preemptions += 1

    def _can_admit_next(self) -> bool:
        if not self.waiting or len(self.running) >= self.max_num_seqs:
            return False
        reserved = int(self.block_manager.num_blocks * WATERMARK) if self.running else 0
        return self.block_manager.can_admit(self.waiting[0], reserved)

    def _schedule_chunk(self, request: Request, budget: int, scheduled: list[ScheduledRequest]) -> int:
        num_tokens = min(request.num_uncomputed_tokens, budget)
        scheduled.append(ScheduledRequest(request, request.num_computed_tokens, num_tokens))
        return num_tokens

    def _take_token(self, request: Request, token_id: int | None) -> TokenOutput:
        if token_id is None:
            self.block_manager.forget(request)
            self._remove(request)
            return _error_output(request, "the model computed logits that are not finite")
        request.token_ids.append(token_id)
        finish_reason = request.finish_reason()
        if finish_reason is not None:
            self._remove(request)
        return TokenOutput(
            request_id=request.request_id,
            first_index=request.num_output_tokens - 1,
            token_ids=[token_id],
            finish_reason=finish_reason,
            stop_token_id=token_id if finish_reason == "stop" else None,
            num_cached_tokens=request.num_cached_tokens or 0,
        )

    def _remove(self, request: Request) -> None:
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self.block_manager.free(request)


def _error_output(request: Request, reason: str) -> TokenOutput:
    return TokenOutput(
        request_id=request.request_id,
        first_index=request.num_output_tokens,
        finish_reason="error",
        error=reason,
    )
