"""One engine step: schedule, launch, take in what was launched before, sample.

Owns the scheduler and the model runner; called by one thread only. Knows nothing about processes
or sockets. Invariants: after `abort`, a request holds no block and yields no output; what was launched
is collected once, in order, and at most two launches are out at a time.
"""

from dataclasses import dataclass
from typing import Protocol

from ondol.engine.batch import Batch, StepResult
from ondol.engine.grammar_compiler import GrammarQueue
from ondol.engine.messages import AddRequest, EngineStats, TokenOutput
from ondol.engine.queue_notices import QueueNotices
from ondol.engine.request import Request
from ondol.engine.scheduler import Scheduler, error_output

# What a model, a kernel or a device raises when a step goes wrong.
STEP_ERRORS = (RuntimeError, ValueError, IndexError)


class Launched(Protocol):
    """Work that the device has been given."""

    def sample(self) -> None:
        """Queue the choice of the batch's tokens, which may depend on all tokens before them; called once.

        The results of the launch before have been taken in by then.
        """
        ...

    def collect(self) -> StepResult:
        """Wait for it and read what came of it; called once, after `sample`."""
        ...


class Runner(Protocol):
    """What the core needs of a model runner; tests put a scripted one in its place."""

    def launch(self, batch: Batch) -> Launched:
        """Queue the model's work on a batch behind what was launched before, and do not wait for it.

        Pending tokens of the batch's requests are those that the launch before this one sampled.
        """
        ...


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch whose result has not been read."""

    batch: Batch
    launched: Launched


class EngineCore:
    """The engine's state and its four beats.

    Args:
        runner: computes a batch.
        scheduler: chooses it.
        end_token_ids: ids that end a generation unless the request ignores them.
        max_model_len: tokens of prompt plus output.
        vocab_size: rows of the model's vocabulary; ids beyond it are refused.
        grammars: where constrained requests wait for their grammar; None refuses them.
        overlaps: launch a step before the tokens of the one before are read, where that is possible. A
            device that works beside the host then never waits for it; tokens are the same. May be changed
            between two steps.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        end_token_ids: frozenset[int],
        max_model_len: int,
        vocab_size: int,
        grammars: GrammarQueue | None = None,
        *,
        overlaps: bool = False,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        # A tokenizer may know more ids than the model has rows.
        self._end_token_ids = frozenset(token for token in end_token_ids if token < vocab_size)
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._grammars = grammars
        self._notices = QueueNotices()
        self.overlaps = overlaps
        self._in_flight: InFlight | None = None

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything, or read what was computed."""
        return self._scheduler.has_work or self._in_flight is not None

    @property
    def is_compiling(self) -> bool:
        """Whether a grammar is being compiled: a later step will have work that no message brings."""
        return bool(self._grammars)

    def add(self, message: AddRequest) -> list[TokenOutput]:
        """Queue a request; returns an error output at once if it can never run."""
        params = message.params
        num_prompt_tokens = len(message.prompt_ids)
        reason = self._reason_to_refuse(message)
        if reason is not None:
            return [
                TokenOutput(
                    request_id=message.request_id,
                    first_index=len(message.output_ids),
                    finish_reason="error",
                    error=reason,
                )
            ]
        end_token_ids = frozenset(params.stop_token_ids)
        # A grammar allows an end token where it is complete and nowhere else.
        if not params.ignore_eos or params.grammar is not None:
            end_token_ids |= self._end_token_ids
        # Resumed requests have sent what they know of their prompt.
        wants_prompt_logprobs = params.prompt_logprobs is not None and not message.output_ids
        request = Request(
            request_id=message.request_id,
            token_ids=[*message.prompt_ids, *message.output_ids],
            num_prompt_tokens=num_prompt_tokens,
            params=params,
            end_token_ids=end_token_ids,
            cache_salt=message.cache_salt,
            priority=message.priority,
            prompt_logprobs=[None] if wants_prompt_logprobs else None,
        )
        if params.grammar is not None and self._grammars is not None:
            self._grammars.add(request)
        else:
            self._scheduler.add(request)
        return []

    def _reason_to_refuse(self, message: AddRequest) -> str | None:
        """Why a request can never run; one bad id would end its whole batch."""
        params, num_prompt_tokens = message.params, len(message.prompt_ids)
        if num_prompt_tokens == 0 or num_prompt_tokens + params.max_tokens > self._max_model_len:
            return (
                f"a prompt of {num_prompt_tokens} tokens with {params.max_tokens} to generate "
                f"does not fit the context of {self._max_model_len} tokens"
            )
        if params.grammar is not None and self._grammars is None:
            return "this engine has no tokenizer, which a grammar needs"
        biased = (token for token, _ in params.logit_bias)
        for token in (*message.prompt_ids, *message.output_ids, *params.stop_token_ids, *biased):
            if not 0 <= token < self._vocab_size:
                return f"token id {token} is not among the model's {self._vocab_size}"
        return None

    def abort(self, request_id: str) -> None:
        """Forget a request and free its blocks now; unknown ids are ignored."""
        self._scheduler.abort(request_id)
        if self._grammars is not None:
            self._grammars.remove(request_id)

    def step(self) -> list[TokenOutput]:
        """Launch the next step, take in the one before, sample; where steps do not overlap, take in both.

        An exception ends the requests of the batch that it came from, nobody else, and costs nobody a token.
        """
        outputs = self._take_compiled()
        if self._in_flight is not None and not self._scheduler.can_schedule_ahead():
            outputs += self._collect(self._in_flight)
            self._in_flight = None
        batch = self._scheduler.schedule()
        outputs += self._notices.take(self._scheduler.waiting)
        before, self._in_flight = self._in_flight, None
        launched, failure = self._launch(batch) if batch.scheduled else (None, None)
        if before is not None:
            outputs += self._collect(before)
        if launched is not None:
            failure = _sample(launched)
        if failure is not None:
            outputs += self._fail(batch, failure)
        elif launched is not None:
            self._in_flight = InFlight(batch, launched)
        if self._in_flight is not None and not self.overlaps:
            outputs += self._collect(self._in_flight)
            self._in_flight = None
        return outputs

    def _launch(self, batch: Batch) -> tuple[Launched | None, Exception | None]:
        try:
            return self._runner.launch(batch), None
        except STEP_ERRORS as error:
            return None, error

    def _collect(self, step: InFlight) -> list[TokenOutput]:
        try:
            result = step.launched.collect()
        except STEP_ERRORS as error:
            return self._fail(step.batch, error)
        return self._scheduler.update(step.batch, result)

    def _fail(self, batch: Batch, error: Exception) -> list[TokenOutput]:
        reason = f"the engine failed on this request's step: {error}"
        return self._scheduler.fail((item.request for item in batch.scheduled), reason)

    def _take_compiled(self) -> list[TokenOutput]:
        """Queue the requests whose grammar is there; end those whose grammar failed."""
        outputs: list[TokenOutput] = []
        if self._grammars is not None:
            for request, reason in self._grammars.take_done():
                if reason is None:
                    self._scheduler.add(request)
                else:
                    outputs.append(error_output(request, reason))
        return outputs

    def stats(self) -> EngineStats:
        """State after the last step."""
        block_manager = self._scheduler.block_manager
        prefix = block_manager.prefix_stats
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting) + len(self._grammars or ()),
            num_blocks=block_manager.num_blocks,
            num_used_blocks=block_manager.num_used_blocks,
            prefix_query_tokens=prefix.query_tokens,
            prefix_hit_tokens=prefix.hit_tokens,
            num_preemptions=self._scheduler.num_preemptions,
        )


def _sample(launched: Launched) -> Exception | None:
    try:
        launched.sample()
    except STEP_ERRORS as error:
        return error
    return None
