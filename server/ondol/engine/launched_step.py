"""A step that the device has been given, and what will be read of it.

Knows what the rows of its result mean, nothing about how they are computed. Invariant: reading it needs
nothing that later steps change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.engine.batch import StepResult
from ondol.engine.logprobs import LogprobRows
from ondol.engine.messages import TokenLogprob
from ondol.engine.read_back import ReadBack
from ondol.engine.request import Request

NOT_FINITE = "the model computed logits that are not finite"
# What stands for the token of a row whose logits were not finite.
NO_TOKEN = -1


def mark_missing(token_ids: Tensor, is_finite: Tensor) -> Tensor:
    """[B] int64: the sampled tokens, and `NO_TOKEN` in rows that were not finite."""
    return torch.where(is_finite, token_ids, NO_TOKEN)


@dataclass(frozen=True, slots=True)
class SampledLogprobs:
    """Whose sampled tokens' log-probabilities are wanted: R rows of the step.

    Attributes:
        rows: their rows.
        num_top: likeliest tokens that each reports.
        found: of these rows, on the device.
    """

    rows: Sequence[int]
    num_top: Sequence[int]
    found: LogprobRows


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Whose prompts' log-probabilities are wanted: R rows of logits, in a row for each request.

    Attributes:
        token_ids: by request, the prompt's tokens that its rows tell of.
        is_finite: [R] bool, on the device.
        found: of all R rows, likewise.
    """

    token_ids: Sequence[tuple[Request, Sequence[int]]]
    is_finite: Tensor
    found: LogprobRows


class LaunchedStep:
    """Satisfies `core.Launched`.

    Args:
        sample: chooses the tokens of what the model has been given to compute.
    """

    def __init__(self, sample: "Callable[[], SampledStep]") -> None:
        self._sample: Callable[[], SampledStep] | None = sample
        self._sampled: SampledStep | None = None

    def sample(self) -> None:
        """Queue the choice of the tokens behind the model's work; called once."""
        assert self._sample is not None, "a step is sampled once"
        self._sampled = self._sample()
        # It holds the logits, and the results may be read a step later.
        self._sample = None

    def collect(self) -> StepResult:
        """Wait for the step and read what came of it."""
        assert self._sampled is not None, "a step is sampled before it is read"
        return self._sampled.collect()


class SampledStep:
    """Results that are on their way.

    Args:
        requests: who samples, by row.
        order: the rows, in the order of the batch's entries that sample.
        token_ids: [B] int64 on the device, by row; see `mark_missing`. It is not changed before it is copied.
        errors: reasons by request id that were known at the launch.
        sampled, prompts: the log-probabilities that are wanted, or None.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        order: Sequence[int],
        token_ids: Tensor,
        errors: Mapping[str, str],
        sampled: SampledLogprobs | None = None,
        prompts: PromptLogprobs | None = None,
    ) -> None:
        self._requests = requests
        self._order = order
        self._errors = errors
        self._sampled = sampled
        self._prompts = prompts
        tensors = [token_ids]
        if sampled is not None:
            tensors += sampled.found.tensors()
        if prompts is not None:
            tensors += (prompts.is_finite, *prompts.found.tensors())
        self._read_back = ReadBack(tensors, token_ids.device)

    def collect(self) -> StepResult:
        """Wait for the step and read what came of it."""
        tensors = iter(self._read_back.read())
        by_row: list[int] = next(tensors).tolist()
        token_ids = [None if by_row[row] == NO_TOKEN else by_row[row] for row in self._order]
        errors = {
            request.request_id: NOT_FINITE
            for request, token_id in zip(self._requests, by_row, strict=True)
            if token_id == NO_TOKEN
        }
        errors |= self._errors
        logprobs = {} if self._sampled is None else self._read_sampled(self._sampled, by_row, tensors)
        prompt_logprobs = {} if self._prompts is None else _read_prompts(self._prompts, tensors, errors)
        return StepResult(token_ids, errors, logprobs, prompt_logprobs)

    def _read_sampled(
        self, sampled: SampledLogprobs, by_row: Sequence[int], tensors: Iterator[Tensor]
    ) -> dict[str, TokenLogprob]:
        """A row without a token has none, and its request ends."""
        rows = _next_rows(tensors).read([by_row[row] for row in sampled.rows], sampled.num_top)
        return {
            self._requests[row].request_id: logprob
            for row, logprob in zip(sampled.rows, rows, strict=True)
            if by_row[row] != NO_TOKEN
        }


def _read_prompts(
    prompts: PromptLogprobs, tensors: Iterator[Tensor], errors: dict[str, str]
) -> dict[str, list[TokenLogprob]]:
    """By request; adds to `errors` whose logits were not finite."""
    is_finite: list[bool] = next(tensors).tolist()
    token_ids = [token_id for _, ids in prompts.token_ids for token_id in ids]
    num_top = [request.params.prompt_logprobs or 0 for request, ids in prompts.token_ids for _ in ids]
    rows = _next_rows(tensors).read(token_ids, num_top)
    found: dict[str, list[TokenLogprob]] = {}
    start = 0
    for request, ids in prompts.token_ids:
        stop = start + len(ids)
        if all(is_finite[start:stop]):
            found[request.request_id] = rows[start:stop]
        else:
            errors[request.request_id] = NOT_FINITE
        start = stop
    return found


def _next_rows(tensors: Iterator[Tensor]) -> LogprobRows:
    return LogprobRows(next(tensors), next(tensors), next(tensors))
