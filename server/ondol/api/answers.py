"""What the daemon sends back, in OpenAI's words and order.

msgspec structs, not pydantic models: what goes out is ours and needs no validation, only speed — one
chunk is built and encoded for each token. Knows nothing about how an answer comes about.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from ondol.engine.messages import StoredWeights

FinishReason = Literal["stop", "length"]

# vLLM's extension: the tokens of a choice, if the request says return_token_ids.
ReturnedTokenIds = tuple[int, ...] | UnsetType


class PromptTokensDetails(Struct, frozen=True):
    """`cached_tokens` came from the prefix cache."""

    cached_tokens: int


class Usage(Struct, frozen=True):
    """Token counts of one request, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatDelta(Struct, frozen=True):
    """What one chunk adds to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(Struct, frozen=True):
    """One choice in a chunk."""

    index: int
    delta: ChatDelta
    logprobs: None = None
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


class ChatMessage(Struct, frozen=True):
    """A whole assistant message."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct, frozen=True):
    """One whole choice."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason
    logprobs: None = None
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


class TextChoice(Struct, frozen=True):
    """One choice of a text completion, whole or in a chunk."""

    index: int
    text: str
    logprobs: None = None
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


class ModelCard(Struct, frozen=True):
    """One served model.

    `max_model_len` is an extension that clients of vLLM know; `source` says where the files came
    from, so that a benchmark can name what it measured.
    """

    id: str
    created: int
    max_model_len: int
    source: dict[str, Any]
    owned_by: str = "ondol"
    object: Literal["model"] = "model"


class ModelList(Struct, frozen=True):
    """The answer of /v1/models."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class KVCacheInfo(Struct, frozen=True):
    """The KV cache: its memory, what it holds and in which units."""

    num_bytes: int
    num_tokens: int
    block_size: int


class ModelInfo(Struct, frozen=True):
    """The answer of /models/info; `stored` and `unquantized` as `WeightsReport` has them."""

    id: str
    device: str
    dtype: str
    max_model_len: int
    weights_bytes: int
    stored: tuple[StoredWeights, ...]
    unquantized: tuple[str, ...]
    kv_cache: KVCacheInfo
    load_seconds: float
    notes: tuple[str, ...]
    object: Literal["model.info"] = "model.info"
