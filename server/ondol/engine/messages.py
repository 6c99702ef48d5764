"""What the API process and the engine process say to each other.

Length-prefixed MessagePack over a socketpair: 4 bytes big-endian length, then one message. Never
pickle: a message can only build the types below. Knows nothing about who sends or receives.
"""

import struct
from typing import Literal

import msgspec

from ondol.engine.sampling_params import SamplingParams
from ondol.engine.stored_weights import WeightsReport

FinishReason = Literal["stop", "length", "error"]

LENGTH_PREFIX = struct.Struct(">I")


class QuantizationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How weights are quantized on load.

    Attributes:
        method: "none", "int8", "nf4", "fp4", or "auto": the most precise choice that fits the memory.
        compute_dtype: of products with 4-bit weights; "auto" is the model's.
        use_double_quant: quantize the scales of 4-bit blocks again; "auto" chooses this too.
        quant_storage: dtype of the tensors that 4-bit codes are packed in, spelled as torch does.
        skip_modules: names, prefixes or components of names of modules that stay as they are.
        quantize_lm_head: quantize the head too.
    """

    method: str = "none"
    compute_dtype: str = "auto"
    use_double_quant: bool = False
    quant_storage: str = "uint8"
    skip_modules: tuple[str, ...] = ()
    quantize_lm_head: bool = False


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, tag="config"):
    """First message to a new engine process: what to load and within which bounds.

    Attributes:
        model_path: folder in Hugging Face layout.
        device: "cpu" or "cuda" ("auto" is resolved by the engine: cuda if usable).
        dtype: "auto", "float32", "bfloat16" or "float16".
        quantization: on load; a checkpoint that is quantized already takes "none" and "auto".
        max_model_len: tokens of prompt plus output; None takes the model's own limit, or what fits.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens computed in one step, over all requests; None measures what the
            device computes in a quarter of a second.
        kv_cache_bytes: memory for the paged KV cache; None lets the engine choose.
        kv_cache_dtype: "auto" (the model's dtype) or "fp8".
        block_size: tokens per KV block.
        enable_prefix_caching: reuse the blocks of equal prefixes.
        deterministic: compute every row so that its bits do not depend on the rows beside it.
        offload_bytes: host memory for layers that stay there and are copied to the device in every step.
        end_token_ids: further ids that end a generation (the chat template's end token).
        num_threads: CPU threads for the model; None leaves torch's choice.
        memory_bytes: what --quantization auto may fill; None measures what the device has free.
        memory_share: part of that memory to stay within if any quantization does.
        wants_plan: answer with a `LoadPlan` and read no weight before `Proceed`.
    """

    model_path: str
    device: str = "auto"
    dtype: str = "auto"
    quantization: QuantizationConfig = QuantizationConfig()
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: str = "auto"
    block_size: int = 16
    enable_prefix_caching: bool = True
    deterministic: bool = False
    offload_bytes: int = 0
    end_token_ids: tuple[int, ...] = ()
    num_threads: int | None = None
    memory_bytes: int | None = None
    memory_share: float = 1.0
    wants_plan: bool = False


class Proceed(msgspec.Struct, frozen=True, tag="proceed"):
    """The answer to a `LoadPlan`: load the weights, with a KV cache of this size."""

    kv_cache_bytes: int


class AddRequest(msgspec.Struct, frozen=True, kw_only=True, tag="add"):
    """Start a request, or resume one: `output_ids` are taken as already generated.

    `priority`: lower is earlier; see `scheduler.py`.
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    output_ids: list[int] = []
    cache_salt: str = ""
    priority: int = 0


class AbortRequest(msgspec.Struct, frozen=True, tag="abort"):
    """Forget a request and free its blocks; unknown ids are ignored (it may just have ended)."""

    request_id: str


class LoadProgress(msgspec.Struct, frozen=True, tag="progress"):
    """Weights streamed in so far, in bytes of the checkpoint."""

    loaded_bytes: int
    total_bytes: int


class Offload(msgspec.Struct, frozen=True, array_like=True):
    """Layers in host memory: the flag for it, their bytes there, and the weights left on the device."""

    flag: str
    host_bytes: int
    weights_bytes: int


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """What a load will take, told before it takes anything.

    Attributes:
        device: "cpu" or "cuda".
        weights_bytes: exact, in the form that was asked for or that "auto" chose; what stays in host memory
            counts only on a CPU.
        host_bytes: host memory beside the device's, of layers that stay there.
        offloads: what else might stay there, the smallest first; none on a CPU.
        workspace_bytes: scratch of the largest step, an upper estimate.
        min_kv_bytes: KV cache without which it cannot run: one request at the context that was asked
            for; where none was, one block, for then the context is shortened to what fits.
        request_kv_bytes: KV cache of one request at the context.
        max_kv_bytes: KV cache beyond which more is of no use.
        context: tokens of one request.
        free_bytes: of the device, now, less a reserve for everybody else.
        total_bytes: of the device.
    """

    device: str
    weights_bytes: int
    workspace_bytes: int
    min_kv_bytes: int
    request_kv_bytes: int
    max_kv_bytes: int
    context: int
    free_bytes: int
    total_bytes: int
    host_bytes: int = 0
    offloads: tuple[Offload, ...] = ()

    @property
    def fixed_bytes(self) -> int:
        """What it takes beside the KV cache."""
        return self.weights_bytes + self.workspace_bytes


class EngineReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded and requests are welcome.

    Attributes:
        kv_cache_dtype: of keys and values: "float32", "bfloat16", "float16" or "fp8".
        weights_bytes: on the device; host_weights_bytes: beside it, of layers that stay in host memory.
        workspace_bytes: memory beside weights and KV cache, measured; None where it is what was planned.
        deterministic: as asked.
    """

    device: str
    dtype: str
    max_model_len: int
    vocab_size: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    weights_bytes: int
    host_weights_bytes: int = 0
    kv_cache_bytes: int
    kv_cache_dtype: str
    workspace_bytes: int | None = None
    load_seconds: float
    deterministic: bool = False
    weights: WeightsReport = WeightsReport()
    notes: tuple[str, ...] = ()


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """Loading ended with an expected error; `kind` is the class name in `ondol.errors`."""

    kind: str
    message: str


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """State after a step; counters run from the engine's start."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_used_blocks: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    num_preemptions: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """How likely the model found one token, before temperature, penalties, bias and masks.

    Attributes:
        token_id: the token that is there.
        logprob: natural logarithm of its probability, by softmax over the float32 logits; never below
            -9999.0.
        top_ids: the likeliest tokens, likeliest first; as many as the request asked for.
        top_logprobs: theirs.
    """

    token_id: int
    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class TokenOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New tokens of one request: deltas, never histories.

    Attributes:
        first_index: index of token_ids[0] among the request's output; receivers drop what they have.
        finish_reason: set on the request's last output.
        stop_token_id: the end token that caused finish_reason "stop"; also last in token_ids.
        num_cached_tokens: prompt tokens that came from the prefix cache.
        error: one sentence, with finish_reason "error".
        logprobs: one for each of token_ids if the request asks for them, else empty.
        prompt_logprobs: one for each prompt token, None for the first; with the first tokens alone.
        prefill_s: seconds from the start of the prompt's computation to the first token, with that token.
        queue_position: 1 is the next to be admitted; on outputs without tokens, while a request waits.
    """

    request_id: str
    first_index: int
    token_ids: list[int] = []
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0
    error: str | None = None
    logprobs: list[TokenLogprob] = []
    prompt_logprobs: list[TokenLogprob | None] | None = None
    prefill_s: float | None = None
    queue_position: int | None = None


class StepOutputs(msgspec.Struct, frozen=True, tag="outputs"):
    """Everything that one engine step produced."""

    outputs: list[TokenOutput]
    stats: EngineStats


ToEngine = EngineConfig | Proceed | AddRequest | AbortRequest
FromEngine = LoadPlan | LoadProgress | EngineReady | LoadFailed | StepOutputs


def encode(message: ToEngine | FromEngine) -> bytes:
    """One message with its length prefix."""
    body = msgspec.msgpack.encode(message)
    return LENGTH_PREFIX.pack(len(body)) + body
