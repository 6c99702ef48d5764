"""What the daemon sends back, in OpenAI's words and order.

msgspec structs, not pydantic models: what goes out is ours and needs no validation, only speed — one
chunk is built and encoded for each token. Knows nothing about how an answer comes about.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from ondol.api.model_status import StatusObject
from ondol.engine.stored_weights import StoredWeights
from ondol.service.answer import FinishReason

# vLLM's extension: the tokens of a choice, if the request says return_token_ids.
ReturnedTokenIds = tuple[int, ...] | UnsetType


class PromptTokensDetails(Struct, frozen=True):
    """`cached_tokens` came from the prefix cache."""

    cached_tokens: int


class CompletionTokensDetails(Struct, frozen=True):
    """OpenAI's further kinds of completion tokens, of which there are none here."""

    accepted_prediction_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Struct, frozen=True):
    """Token counts of one request, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class AnswerTimings(Struct, frozen=True):
    """Ondol's extension: where an answer's time went, in seconds, each stage as its slowest choice met it.

    `tokens_per_second` counts all choices from the first token on; null where there was but one.
    """

    queue_s: float
    prefill_s: float
    decode_s: float
    tokens_per_second: float | None


class TopLogprob(Struct, frozen=True):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobEntry(Struct, frozen=True):
    """One token of a message."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    """The log-probabilities of a message's tokens."""

    content: list[LogprobEntry]
    refusal: None = None


class TextLogprobs(Struct, frozen=True):
    """The log-probabilities of a text's tokens, as lists side by side; of a first token, null."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class FunctionDelta(Struct, frozen=True):
    """A piece of a call: the name on the first, JSON text of the arguments on all."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallChunk(Struct, frozen=True):
    """What one chunk adds to a call."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class FunctionCall(Struct, frozen=True):
    """What is called, with JSON text for arguments."""

    name: str
    arguments: str


class MessageToolCall(Struct, frozen=True):
    """One whole call."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatDelta(Struct, frozen=True):
    """What one chunk adds to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallChunk] | UnsetType = UNSET


class ChatChunkChoice(Struct, frozen=True):
    """One choice in a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: ReturnedTokenIds = UNSET


class ChatChunk(Struct, frozen=True):
    """One event of a streamed chat completion."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    timings: AnswerTimings | UnsetType = UNSET


class ChatMessage(Struct, frozen=True):
    """A whole assistant message; content is null if it only calls tools."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[MessageToolCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    """One whole choice."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None
    token_ids: ReturnedTokenIds = UNSET


class ChatCompletion(Struct, frozen=True):
    """The answer of /v1/chat/completions without streaming."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    timings: AnswerTimings | UnsetType = UNSET


class TextChoice(Struct, frozen=True):
    """One choice of a text completion, whole or in a chunk."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: ReturnedTokenIds = UNSET


class TextCompletion(Struct, frozen=True):
    """The answer of /v1/completions, and each of its chunks."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    timings: AnswerTimings | UnsetType = UNSET


class ModelCard(Struct, frozen=True):
    """One model that requests may name.

    `max_model_len` is an extension that clients of vLLM know, null until the model is loaded; `status`
    one that clients of llama.cpp know; `source` says where the files came from, so that a benchmark
    can name what it measured.
    """

    id: str
    created: int
    max_model_len: int | None
    source: dict[str, Any]
    status: StatusObject
    owned_by: str = "ondol"
    object: Literal["model"] = "model"


class ModelList(Struct, frozen=True):
    """The answer of /v1/models."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class KVCacheInfo(Struct, frozen=True):
    """The KV cache: its memory, what it holds, in which units and in which precision."""

    num_bytes: int
    num_tokens: int
    block_size: int
    dtype: str


class ModelInfo(Struct, frozen=True):
    """The answer of /models/info; `stored` and `unquantized` as `WeightsReport` has them."""

    id: str
    device: str
    dtype: str
    deterministic: bool
    max_model_len: int
    weights_bytes: int
    host_weights_bytes: int
    stored: tuple[StoredWeights, ...]
    unquantized: tuple[str, ...]
    kv_cache: KVCacheInfo
    load_seconds: float
    notes: tuple[str, ...]
    object: Literal["model.info"] = "model.info"
