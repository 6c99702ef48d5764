"""What a client may say about sampling, and what it means for one model.

Knows nothing about wire formats: every front door translates its own fields into `SamplingOptions`.
Invariant: an option that is None was not asked for, and the model's own default, then the
protocol's, takes its place. Ranges are the front door's to check; what depends on the model is
checked here.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ondol.engine.sampling_params import SamplingParams
from ondol.errors import InvalidRequest, PromptTooLong
from ondol.model_manager.loaded_model import LoadedModel

MIN_INT64 = -(2**63)

# No tokenizer has a longer piece (Llama-3's longest is 128 spaces), so a text with more bytes than
# this per token of the context cannot fit, and need not be tokenized to be refused.
MAX_BYTES_PER_TOKEN = 256

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """The sampling half of a request, protocol-neutral; names mean what `SamplingParams` says.

    Attributes:
        max_tokens: None is the rest of the context.
        default_max_tokens: taken where max_tokens is None, clipped to the rest of the context.
        logprobs: alternatives per generated token; None leaves logprobs out.
        prompt_logprobs: the same for the prompt's tokens.
        grammar: llguidance grammar that the answer must match.
    """

    max_tokens: int | None = None
    default_max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str | None = None

    def params(self, model: LoadedModel, num_prompt_tokens: int, prompt_param: str) -> SamplingParams:
        """Parameters of choice 0 for a prompt of this length.

        Raises PromptTooLong (its param is `prompt_param`) and InvalidRequest.
        """
        defaults = model.defaults
        max_tokens = self._max_tokens(model.max_model_len, num_prompt_tokens, prompt_param)
        min_tokens = self.min_tokens or 0
        if min_tokens > max_tokens:
            raise InvalidRequest(
                f"min_tokens is {min_tokens}, but the answer can have at most {max_tokens} tokens.",
                param="min_tokens",
            )
        vocab_size = model.vocab_size
        check_token_ids([token_id for token_id, _ in self.logit_bias], vocab_size, "logit_bias")
        check_token_ids(self.stop_token_ids, vocab_size, "stop_token_ids")
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_k=min(max(_first(self.top_k, defaults.top_k, 0), 0), vocab_size),
            top_p=_first(self.top_p, defaults.top_p, 1.0),
            min_p=_first(self.min_p, defaults.min_p, 0.0),
            repetition_penalty=_first(self.repetition_penalty, defaults.repetition_penalty, 1.0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias,
            seed=_random_seed() if self.seed is None else self.seed,
            min_tokens=min_tokens,
            ignore_eos=self.ignore_eos,
            stop_token_ids=self.stop_token_ids,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            grammar=self.grammar,
        )

    def _max_tokens(self, max_model_len: int, num_prompt_tokens: int, prompt_param: str) -> int:
        num_left = max_model_len - num_prompt_tokens
        asked = self.max_tokens
        # A prompt that is only scored may fill the context to its last token.
        if num_left < (0 if asked == 0 else 1):
            raise PromptTooLong(num_prompt_tokens, max_model_len, param=prompt_param)
        if asked is None:
            return num_left if self.default_max_tokens is None else min(num_left, self.default_max_tokens)
        if asked > num_left:
            raise PromptTooLong(num_prompt_tokens, max_model_len, asked, param=prompt_param)
        return asked


def check_text_size(text: str, max_model_len: int, param: str) -> None:
    """Refuse a text that cannot fit before any work is spent on tokenizing it."""
    num_bytes = len(text.encode("utf-8"))
    if num_bytes > max_model_len * MAX_BYTES_PER_TOKEN:
        raise InvalidRequest(
            f"This model's maximum context length is {max_model_len} tokens. However, the prompt has "
            f"{num_bytes} bytes, at least {-(-num_bytes // MAX_BYTES_PER_TOKEN)} tokens. "
            "Shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )


def check_token_ids(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raise InvalidRequest naming the first id that the model does not have."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"Token id {token_id} is not in the vocabulary; ids run from 0 to {vocab_size - 1}.",
                param=param,
            )


def _first(asked: Value | None, default: Value | None, otherwise: Value) -> Value:
    if asked is not None:
        return asked
    return otherwise if default is None else default


def _random_seed() -> int:
    return secrets.randbits(64) + MIN_INT64
