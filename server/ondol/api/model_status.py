"""How models are told of over HTTP: where they stand, how far a load is, what they hold.

The shape is the one of llama.cpp's server in router mode, which Open WebUI and others understand, with
more beside it (docs/models-api.md). Knows nothing about routes. Invariant: no folder of this machine
is told to clients.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from ondol.api.errors import ErrorDetail, error_body
from ondol.model_manager.model_status import MemoryUse, ModelStatus, StageProgress

StatusValue = Literal["unloaded", "downloading", "loading", "loaded", "unloading"]
LoadStage = Literal["starting", "waiting", "weights"]
LOAD_STAGES: tuple[LoadStage, ...] = ("starting", "waiting", "weights")


class ByteCount(Struct, frozen=True):
    """How much of a download is here; `total` is None until the source has told it."""

    done: int
    total: int | None


class LoadProgress(Struct, frozen=True):
    """How far a load is: `value`, from 0 to 1, is of the `current` one of the `stages`."""

    current: LoadStage
    value: float
    stages: tuple[LoadStage, ...] = LOAD_STAGES


# Of a download: counts by what is downloaded.
WireProgress = dict[str, ByteCount] | LoadProgress


class StatusObject(Struct, frozen=True, omit_defaults=True):
    """Where a model stands; a model that failed is unloaded, and says why."""

    value: StatusValue
    progress: WireProgress | UnsetType = UNSET
    failed: bool = False
    exit_code: int | UnsetType = UNSET
    error: ErrorDetail | UnsetType = UNSET


class MemoryObject(Struct, frozen=True):
    """Bytes on the model's device, and beside it those of layers that stay in host memory."""

    weights_bytes: int
    kv_cache_bytes: int
    workspace_bytes: int
    total_bytes: int
    host_weights_bytes: int


class Architecture(Struct, frozen=True):
    """What goes in and comes out."""

    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)


class ModelEntry(Struct, frozen=True):
    """One model in the answer of GET /models; see `ModelStatus` for what the fields mean.

    `in_cache` tells whether it is on this machine; loading any other one downloads it first.
    """

    id: str
    in_cache: bool
    status: StatusObject
    source: dict[str, Any]
    num_streams: int
    expires_at: float | None
    pinned: bool
    memory: MemoryObject | None
    quantization: str | None
    device: str | None
    max_model_len: int | None
    dtype: str | None
    kv_cache_dtype: str | None
    deterministic: bool | None
    architecture: Architecture = Architecture()
    owned_by: str = "ondol"
    object: Literal["model"] = "model"


def model_entry(status: ModelStatus) -> ModelEntry:
    """All that clients may know about a model."""
    return ModelEntry(
        id=status.id,
        in_cache=status.path is not None,
        status=status_object(status),
        source=without_paths(status.source),
        num_streams=status.num_streams,
        expires_at=status.expires_at,
        pinned=status.is_pinned,
        memory=None if status.memory is None else _memory(status.memory),
        quantization=status.quantization,
        device=status.device,
        max_model_len=status.max_model_len,
        dtype=status.dtype,
        kv_cache_dtype=status.kv_cache_dtype,
        deterministic=status.deterministic,
    )


def status_object(status: ModelStatus) -> StatusObject:
    """Where a model stands."""
    if status.status == "failed":
        assert status.error is not None
        return StatusObject(
            "unloaded",
            failed=True,
            exit_code=status.error.exit_code,
            error=error_body(status.error).error,
        )
    return StatusObject(status.status, wire_progress(status.id, status.progress))


def wire_progress(name: str, progress: StageProgress | None) -> WireProgress | UnsetType:
    """Bytes of a download, or the stage of a load; UNSET where there is nothing to tell."""
    if progress is None:
        return UNSET
    if progress.stage == "downloading":
        return {name: ByteCount(progress.done_bytes or 0, progress.total_bytes)}
    return LoadProgress(progress.stage, progress.share or 0.0)


def without_paths(source: dict[str, Any]) -> dict[str, Any]:
    """Where files came from, for clients: they have no business with the folders of this machine."""
    return {key: value for key, value in source.items() if key != "path"}


def _memory(memory: MemoryUse) -> MemoryObject:
    return MemoryObject(
        memory.weights_bytes,
        memory.kv_cache_bytes,
        memory.workspace_bytes,
        memory.total_bytes,
        memory.host_weights_bytes,
    )
