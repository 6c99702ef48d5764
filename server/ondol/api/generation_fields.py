"""The request fields that every generating endpoint shares, and how they are written.

Knows nothing about chat templates or answers; what the fields mean to a model is
`service/sampling_options.py`'s. Invariant: ranges are checked here and only here; whatever passes is
safe to compute. Ranges are OpenAI's, for its extensions vLLM's; so is the sense of `priority`.
"""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ondol.api.body import OtherField, WireModel
from ondol.config.durations import parse_duration
from ondol.service.sampling_options import SamplingOptions

MAX_CHOICES = 128
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MAX_DEADLINE_S = 24 * 3600
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1


def _bounded_biases(value: object) -> object:
    # Before each entry is looked at: every wrong one would become an error of its own.
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIASES:
        raise ValueError(f"at most {MAX_LOGIT_BIASES} tokens can be biased")
    return value


def _keyed_by_token_ids(biases: dict[str, float]) -> dict[str, float]:
    for key in biases:
        # isdecimal alone lets other scripts' digits and endless ones through.
        if not (key.isascii() and key.isdecimal() and len(key) <= len(str(MAX_INT64))):
            raise ValueError(f"{key!r:.80} is no token id")
    return biases


def _composed(text: str) -> str:
    # Hangul typed on macOS may arrive decomposed; models write it composed.
    return unicodedata.normalize("NFC", text)


ModelName = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_composed)]
StopString = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_composed)]
StopStrings = Annotated[list[StopString], Field(max_length=4, fail_fast=True)]
TokenId = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[dict[str, Bias], BeforeValidator(_bounded_biases), AfterValidator(_keyed_by_token_ids)]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]

NO_BEARING = "has no bearing on the answer"

OTHER_FIELDS: Mapping[str, OtherField] = {
    "user": OtherField("accepted", NO_BEARING),
    "metadata": OtherField("accepted", NO_BEARING),
    "service_tier": OtherField("accepted", "there is one tier"),
    "safety_identifier": OtherField("accepted", NO_BEARING),
    "prompt_cache_key": OtherField("accepted", "equal beginnings are found without it"),
    "prompt_cache_retention": OtherField("accepted", "blocks stay until their memory is needed"),
    "prompt_cache_options": OtherField("accepted", "blocks stay until their memory is needed"),
    "store": OtherField("ignored", "nothing is stored", (None, False)),
}


class StreamOptions(WireModel):
    """What a stream tells besides text."""

    other_fields: ClassVar[Mapping[str, OtherField]] = {
        "include_obfuscation": OtherField("ignored", "chunks are not padded", (None, False)),
    }

    include_usage: bool | None = Field(None, description="One more chunk, with token counts, before the end.")
    include_timings: bool | None = Field(
        None, description="The last chunk has `timings`: seconds queued, in prefill, in decode; tokens/s."
    )


class GenerationFields(WireModel):
    """Fields of /v1/chat/completions and /v1/completions alike; null means absent."""

    other_fields: ClassVar[Mapping[str, OtherField]] = OTHER_FIELDS

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(None, description="0 and -1 are off.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    logit_bias: Biases | None = Field(None, description="Token ids, as strings, to biases.")
    seed: Annotated[int, Field(ge=MIN_INT64, le=MAX_INT64)] | None = None
    stop: StopString | StopStrings | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = Field(None, description="Generate through end tokens.")
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    return_token_ids: bool | None = Field(None, description="Choices have `token_ids`.")
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = Field(
        None, description='Seconds from arrival; then the answer ends with what is there, as "length".'
    )
    priority: Annotated[int, Field(ge=MIN_INT64, le=MAX_INT64)] | None = Field(
        None, description="Among those that wait, lower is earlier; by default 0."
    )
    keep_alive: Duration | None = Field(
        None, description='How long the model stays loaded after this: seconds, "5m", -1 for always.'
    )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, whichever way it was written, and what a client mangled as it was meant."""
        if self.stop is None:
            return ()
        written = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return written + tuple(repaired for stop in written if (repaired := unmangled(stop)) is not None)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def include_timings(self) -> bool:
        """Whether the answer tells where its time went."""
        return bool(self.stream_options and self.stream_options.include_timings)

    def sampling_options(self, **others: Any) -> SamplingOptions:  # noqa: ANN401 - SamplingOptions' own types
        """The fields that choose tokens; `others` are those that endpoints spell differently."""
        shared: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": tuple((int(key), bias) for key, bias in (self.logit_bias or {}).items()),
            "seed": self.seed,
            "min_tokens": self.min_tokens,
            "ignore_eos": bool(self.ignore_eos),
            "stop_token_ids": tuple(self.stop_token_ids or ()),
        }
        return SamplingOptions(**shared | others)


def unmangled(text: str) -> str | None:
    """What was meant by a text whose UTF-8 bytes a client read as Latin-1, as some do with stop strings.

    None unless the bytes are UTF-8 and make Hangul, Han, kana or another wide character: text that is
    Latin-1 by intention is never that.
    """
    try:
        meant = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None
    is_wide = any(unicodedata.east_asian_width(character) in "WF" for character in meant)
    return unicodedata.normalize("NFC", meant) if is_wide else None
