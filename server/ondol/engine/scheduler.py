"""Decides, step by step, whose tokens are computed.

There are no phases: every running request catches up its computed tokens with its known ones, by
one (decode) or by a chunk (prefill), within one token budget. Decodes come first, so that a long
prompt delays nobody by more than a chunk. Knows nothing about tensors, sockets or text.

Priorities order prefills, admissions and, from the other end, preemptions; where they are equal, what
runs goes before what waits, and what came first before what came later. Nobody is preempted to admit
somebody else. A priority is absolute: while more urgent requests keep coming, less urgent ones wait, however
long.

A step may be chosen while the tokens of the one before are still unknown (`can_schedule_ahead`): its
requests count as having their pending tokens. Who turns out to have ended is dropped when the later
step's result comes, and was freed before that: the device works in the order of launches.

Invariants: a request is in exactly one of waiting, running or gone; both are ordered by priority, then
waiting by arrival and running by admission; all known tokens of a running prefill have blocks, so only
decodes ask for more, and when none is left the last running request gives its blocks up and is recomputed
later. The first running request can always proceed, therefore every request ends once no more urgent ones
arrive.
"""

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from ondol.engine.batch import Batch, ScheduledRequest, StepResult
from ondol.engine.block_manager import BlockManager
from ondol.engine.messages import TokenOutput
from ondol.engine.request import Request
from ondol.engine.step_budget import StepBudget

# Share of the pool that an admission leaves free for the growth of those already running.
WATERMARK = 0.01


class Scheduler:
    """Continuous batching over a paged cache.

    Args:
        block_manager: the pool.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: token budget of a step.
        max_prompt_logits: of these, tokens of prompts whose log-probabilities are wanted.
    """

    def __init__(
        self,
        block_manager: BlockManager,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_prompt_logits: int = 512,
    ) -> None:
        self.block_manager = block_manager
        # A step must be able to decode every running request.
        self.max_num_seqs = min(max_num_seqs, max_num_batched_tokens)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_prompt_logits = max_prompt_logits
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; its prompt and completion must fit the pool (checked by the core)."""
        _insert_last(self.waiting, request)

    def abort(self, request_id: str) -> bool:
        """Forget a request and free its blocks now; False if it is not open."""
        request = next((r for r in (*self.running, *self.waiting) if r.request_id == request_id), None)
        if request is None:
            return False
        self._remove(request)
        return True

    def can_schedule_ahead(self) -> bool:
        """Whether the next step can be chosen before the results of launched ones are known.

        It cannot where requests would be preempted, for to be computed again they must know their tokens, and
        not where results tell which log-probabilities of a prompt are still wanted.
        """
        running, blocks = self.running, self.block_manager
        if any(request.needs_prompt_logprobs for request in running if not request.num_pending_tokens):
            return False
        # A step adds one token to each, and so one block at most; there are mostly enough for all.
        if len(running) <= blocks.num_free_blocks:
            return True
        num_full = sum(blocks.is_full(request) for request in running if request.num_pending_tokens)
        return num_full <= blocks.num_free_blocks

    def schedule(self) -> Batch:
        """Choose the next step's work: decodes, then prefills and admissions by priority.

        What is chosen counts as computed from now on, and what it samples as pending.
        """
        scheduled, prefilling = self._schedule_decodes()
        budget = StepBudget(self.max_num_batched_tokens - len(scheduled), self.max_prompt_logits)
        for request in prefilling:
            self._admit(budget, scheduled, before=request.priority)
            self._schedule_chunk(request, budget, scheduled)
        self._admit(budget, scheduled)
        return Batch(tuple(scheduled))

    def update(self, batch: Batch, result: StepResult) -> list[TokenOutput]:
        """Take in a step's result; a request that it names an error for ends alone.

        What it says of requests that have ended in the meantime is dropped.

        Args:
            batch: what was computed.
            result: what came of it.
        """
        outputs = []
        token_ids = iter(result.token_ids)
        for item in batch.scheduled:
            request = item.request
            token_id = next(token_ids) if item.samples else None
            if not request.is_open:
                continue
            request.num_pending_tokens -= item.samples
            self.block_manager.register_computed(request, item.stop)
            if request.prompt_logprobs is not None:
                request.prompt_logprobs += result.prompt_logprobs.get(request.request_id, ())
            error = result.errors.get(request.request_id)
            if error is None and token_id is not None:
                error = request.add_output_token(token_id)
            elif error is not None and token_id is None:
                # What it computed is not to be found by others.
                self.block_manager.forget(request)
            if error is not None:
                outputs += self.fail([request], error)
            elif item.completes:
                outputs.append(self._output(request, token_id, result))
        return outputs

    def fail(self, requests: Iterable[Request], reason: str) -> list[TokenOutput]:
        """End those of the requests that are open with an error; their neighbours go on."""
        outputs = []
        for request in requests:
            if request.is_open:
                self._remove(request)
                outputs.append(error_output(request, reason))
        return outputs

    def _schedule_decodes(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """One token of everybody who decodes, and those who do not yet."""
        scheduled: list[ScheduledRequest] = []
        prefilling: list[Request] = []
        is_full = self.block_manager.is_full
        index = 0
        while index < len(self.running):
            request = self.running[index]
            num_uncomputed_tokens = request.num_uncomputed_tokens
            if num_uncomputed_tokens > 1:
                prefilling.append(request)
            elif (
                num_uncomputed_tokens == 1
                and not request.is_ending
                and (not is_full(request) or self._make_room(request))
            ):
                scheduled.append(_take(request, 1, num_uncomputed_tokens))
            # Only from behind is anybody preempted; who had to preempt itself was the last one.
            index += 1
        return scheduled, prefilling

    def _make_room(self, request: Request) -> bool:
        """Give a request its next block and preempt from the end for it; False if it went itself."""
        while not self.block_manager.can_append(request):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        self.block_manager.append(request)
        return True

    def _preempt(self, request: Request) -> None:
        assert not request.num_pending_tokens, "a request to be computed again knows its tokens"
        self.running.remove(request)
        self.block_manager.free(request)
        # Before those of its priority that have never run.
        self.waiting.insert(bisect_left(self.waiting, request.priority, key=_priority), request)
        self.num_preemptions += 1

    def _admit(self, budget: StepBudget, scheduled: list[ScheduledRequest], before: float = math.inf) -> None:
        """Admit in order, as long as there is room; only priorities lower than `before`."""
        while self.waiting and self.waiting[0].priority < before:
            request = self.waiting[0]
            if budget.share_of(request) == 0 or not self._can_admit(request):
                return
            del self.waiting[0]
            self.block_manager.admit(request)
            _insert_last(self.running, request)
            if request.started_s is None:
                request.started_s = time.monotonic()
            self._schedule_chunk(request, budget, scheduled)

    def _can_admit(self, request: Request) -> bool:
        if len(self.running) >= self.max_num_seqs:
            return False
        reserved = int(self.block_manager.num_blocks * WATERMARK) if self.running else 0
        return self.block_manager.can_admit(request, reserved)

    def _schedule_chunk(
        self, request: Request, budget: StepBudget, scheduled: list[ScheduledRequest]
    ) -> None:
        num_tokens = budget.share_of(request)
        if num_tokens > 0:
            budget.take(request, num_tokens)
            scheduled.append(_take(request, num_tokens, request.num_uncomputed_tokens))

    def _output(self, request: Request, token_id: int | None, result: StepResult) -> TokenOutput:
        """What a request's new token is to the outside; None where only the prompt was to be computed."""
        token_ids = [] if token_id is None else [token_id]
        first_index = request.num_output_tokens - len(token_ids)
        finish_reason = request.finish_reason()
        if finish_reason is not None:
            self._remove(request)
        ended_by_token = finish_reason == "stop" and token_id in request.end_token_ids
        logprob = result.logprobs.get(request.request_id)
        prompt_logprobs, request.prompt_logprobs = request.prompt_logprobs, None
        return TokenOutput(
            request_id=request.request_id,
            first_index=first_index,
            token_ids=token_ids,
            finish_reason=finish_reason,
            stop_token_id=token_id if ended_by_token else None,
            num_cached_tokens=request.num_cached_tokens or 0,
            logprobs=[] if logprob is None else [logprob],
            prompt_logprobs=prompt_logprobs,
            prefill_s=_prefill_s(request) if first_index == 0 else None,
        )

    def _remove(self, request: Request) -> None:
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        request.is_open = False
        self.block_manager.free(request)


def _priority(request: Request) -> int:
    return request.priority


def _insert_last(requests: list[Request], request: Request) -> None:
    """Behind all that are as urgent."""
    requests.insert(bisect_right(requests, request.priority, key=_priority), request)


def _take(request: Request, num_tokens: int, num_uncomputed_tokens: int) -> ScheduledRequest:
    """The next tokens of a request, which count as computed from now on."""
    start = request.num_computed_tokens
    completes = num_tokens == num_uncomputed_tokens
    samples = completes and request.params.max_tokens > 0
    request.num_computed_tokens += num_tokens
    request.num_pending_tokens += samples
    return ScheduledRequest(request, start, num_tokens, completes, samples)


def _prefill_s(request: Request) -> float:
    assert request.started_s is not None, "a request is admitted before it is computed"
    return time.monotonic() - request.started_s


def error_output(request: Request, reason: str) -> TokenOutput:
    """The last output of a request that cannot go on."""
    return TokenOutput(
        request_id=request.request_id,
        first_index=request.num_output_tokens,
        finish_reason="error",
        error=reason,
    )
