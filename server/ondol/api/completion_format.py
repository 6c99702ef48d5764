"""The words of /v1/completions; chunks and the whole share one shape.

Knows nothing about how an answer comes about. Invariant: a choice's parallel lists of log-probabilities
have one entry per token of its text, the echoed prompt's included.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from ondol.api.answers import TextChoice, TextCompletion, TextLogprobs, Usage
from ondol.api.counts import timings_of, usage_of
from ondol.api.fingerprint import system_fingerprint
from ondol.api.generation_fields import GenerationFields
from ondol.api.logprobs import TextLogprobsWriter
from ondol.engine.messages import TokenLogprob
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import ChoiceDelta, FinishReason
from ondol.service.generation import Timings
from ondol.service.whole_answer import Answer, TokenCount, WholeChoice


class CompletionFormat:
    """One text completion."""

    def __init__(
        self, model: LoadedModel, fields: GenerationFields, *, shows_logprobs: bool, echoes: bool
    ) -> None:
        self._id = f"cmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model.name
        self._fields = fields
        self._shows_logprobs = shows_logprobs
        self._fingerprint = system_fingerprint(model)
        self._num_choices = 0
        self._no_usage: UnsetType | None = None if fields.include_usage else UNSET
        self._writers: defaultdict[int, TextLogprobsWriter] = defaultdict(
            lambda: TextLogprobsWriter(model.tokenizer, echoes=echoes)
        )

    def opening(self, num_choices: int) -> list[msgspec.Struct]:
        """Nothing: text completions have no roles."""
        self._num_choices = num_choices
        return []

    def delta(self, index: int, delta: ChoiceDelta) -> TextCompletion | None:
        """New text, the echoed prompt before it, and what is told of their tokens."""
        token_ids = delta.generated.token_ids if self._fields.return_token_ids else UNSET
        logprobs = self._logprobs(
            index, delta.prompt_ids, delta.generated.prompt_logprobs or (), delta.shown_logprobs
        )
        text = delta.prompt_text + delta.text
        if not (text or token_ids or (logprobs and logprobs.tokens)):
            return None
        return self._completion([TextChoice(index, text, logprobs, token_ids=token_ids)], self._no_usage)

    def finish(self, index: int, reason: FinishReason) -> TextCompletion:
        """The last chunk of a choice."""
        return self._completion([TextChoice(index, "", finish_reason=reason)], self._no_usage)

    def closing(self, count: TokenCount, timings: Timings | None) -> list[msgspec.Struct]:
        """Counts and timings, with no choice at all, as OpenAI sends them."""
        if not (self._fields.include_usage or self._fields.include_timings):
            return []
        last = self._completion([], usage_of(count))
        times = timings_of(self._fields, count, timings, self._num_choices)
        return [msgspec.structs.replace(last, timings=times)]

    def whole(self, answer: Answer) -> TextCompletion:
        """The answer without streaming."""
        choices = [self._whole_choice(index, choice) for index, choice in enumerate(answer.choices)]
        whole = self._completion(choices, usage_of(answer.count))
        times = timings_of(self._fields, answer.count, answer.timings, len(choices))
        return msgspec.structs.replace(whole, timings=times)

    def _whole_choice(self, index: int, choice: WholeChoice) -> TextChoice:
        return TextChoice(
            index,
            choice.prompt_text + choice.text,
            self._logprobs(index, choice.prompt_ids, choice.prompt_logprobs, choice.logprobs),
            choice.finish_reason,
            choice.token_ids if self._fields.return_token_ids else UNSET,
        )

    def _logprobs(
        self,
        index: int,
        prompt_ids: Sequence[int],
        prompt_logprobs: Sequence[TokenLogprob | None],
        logprobs: Sequence[TokenLogprob],
    ) -> TextLogprobs | None:
        if not self._shows_logprobs:
            return None
        token_ids = [*prompt_ids[: len(prompt_logprobs)], *(token.token_id for token in logprobs)]
        return self._writers[index].part(token_ids, [*prompt_logprobs, *logprobs])

    def _completion(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> TextCompletion:
        return TextCompletion(self._id, self._created, self._model, self._fingerprint, choices, usage=usage)
