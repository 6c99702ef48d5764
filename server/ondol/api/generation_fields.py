"""The request fields that every generating endpoint shares, and what they mean to the engine.

Knows nothing about chat templates or answers. Invariant: ranges are checked here and only here;
whatever passes is safe to compute. Ranges are OpenAI's, for its extensions vLLM's.
"""

import secrets
import unicodedata
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ondol.engine.sampling_params import SamplingParams
from ondol.errors import InvalidRequest, PromptTooLong
from ondol.model_manager.manager import LoadedModel

MAX_CHOICES = 8
MAX_LOGIT_BIASES = 1024
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1

# No tokenizer has a longer piece (Llama-3's longest is 128 spaces), so a text with more bytes than
# this per token of the context cannot fit, and need not be tokenized to be refused.
MAX_BYTES_PER_TOKEN = 256

Value = TypeVar("Value")


def _bounded_biases(value: object) -> object:
    # Before each entry is looked at: every wrong one would become an error of its own.
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIASES:
        raise ValueError(f"at most {MAX_LOGIT_BIASES} tokens can be biased")
    return value


def _composed(text: str) -> str:
    # Hangul typed on macOS may arrive decomposed; models write it composed.
    return unicodedata.normalize("NFC", text)


ModelName = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_composed)]
StopString = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_composed)]
StopStrings = Annotated[list[StopString], Field(max_length=4, fail_fast=True)]
TokenId = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class WireModel(BaseModel):
    """Base of what clients send: strict types, unknown fields left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class StreamOptions(WireModel):
    """`include_usage` asks for one more chunk, with token counts, before the end."""

    include_usage: bool | None = None


class GenerationFields(WireModel):
    """Fields of /v1/chat/completions and /v1/completions alike; null means absent."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    logit_bias: Annotated[dict[str, Bias], BeforeValidator(_bounded_biases)] | None = None
    seed: Annotated[int, Field(ge=MIN_INT64, le=MAX_INT64)] | None = None
    stop: StopString | StopStrings | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    return_token_ids: bool | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, whichever way it was written."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def asked_max_tokens(self) -> int | None:
        """The limit that the client set on the answer, in tokens."""
        return self.max_tokens

    def sampling_params(
        self, model: LoadedModel, num_prompt_tokens: int, prompt_param: str
    ) -> SamplingParams:
        """Parameters of choice 0, with the model's own defaults where the client says nothing.

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
        top_k = _first(self.top_k, defaults.top_k, 0)
        vocab_size = model.vocab_size
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_k=min(max(top_k, 0), vocab_size),
            top_p=_first(self.top_p, defaults.top_p, 1.0),
            min_p=_first(self.min_p, defaults.min_p, 0.0),
            repetition_penalty=_first(self.repetition_penalty, defaults.repetition_penalty, 1.0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=_logit_bias(self.logit_bias or {}, vocab_size),
            seed=_random_seed() if self.seed is None else self.seed,
            min_tokens=min_tokens,
            ignore_eos=bool(self.ignore_eos),
            stop_token_ids=_token_ids(self.stop_token_ids or (), vocab_size, "stop_token_ids"),
        )

    def _max_tokens(self, max_model_len: int, num_prompt_tokens: int, prompt_param: str) -> int:
        num_left = max_model_len - num_prompt_tokens
        if num_left < 1:
            raise PromptTooLong(num_prompt_tokens, max_model_len, param=prompt_param)
        asked = self.asked_max_tokens
        if asked is not None and asked > num_left:
            raise PromptTooLong(num_prompt_tokens, max_model_len, asked, param=prompt_param)
        return num_left if asked is None else asked


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


def check_token_ids(token_ids: list[int], vocab_size: int, param: str) -> None:
    """Raise InvalidRequest naming the first id that the model does not have."""
    _token_ids(token_ids, vocab_size, param)


def _first(asked: Value | None, default: Value | None, otherwise: Value) -> Value:
    if asked is not None:
        return asked
    return otherwise if default is None else default


def _random_seed() -> int:
    return secrets.randbits(64) + MIN_INT64


def _token_ids(token_ids: list[int] | tuple[int, ...], vocab_size: int, param: str) -> tuple[int, ...]:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"Token id {token_id} is not in the vocabulary; ids run from 0 to {vocab_size - 1}.",
                param=param,
            )
    return tuple(token_ids)


def _logit_bias(biases: dict[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    parsed: list[tuple[int, float]] = []
    for key, bias in biases.items():
        # isdecimal alone lets other scripts' digits and endless ones through.
        if not (key.isascii() and key.isdecimal() and len(key) <= len(str(MAX_INT64))):
            raise InvalidRequest(f"logit_bias has a key that is no token id: {key!r:.80}", param="logit_bias")
        parsed.append((int(key), bias))
    _token_ids(tuple(token_id for token_id, _ in parsed), vocab_size, "logit_bias")
    return tuple(parsed)
