"""What can be said about a model from outside: where it stands, how far a load is, what it holds.

Knows nothing about who asks. The invariant: frozen snapshots; they go stale, they never change.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.errors import OndolError

Phase = Literal["unloaded", "downloading", "loading", "loaded", "unloading", "failed"]
Stage = Literal["downloading", "starting", "waiting", "weights"]


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a download or a load is.

    Attributes:
        stage: "downloading"; "starting" (the engine process); "waiting" (for room); "weights".
        done_bytes, total_bytes: of this stage; None where nobody knows.
    """

    stage: Stage
    done_bytes: int | None = None
    total_bytes: int | None = None

    @property
    def share(self) -> float | None:
        """0 to 1; None where nobody knows."""
        if self.done_bytes is None or not self.total_bytes:
            return None
        return min(1.0, self.done_bytes / self.total_bytes)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that a loaded model holds on its device, and beside it those of layers in host memory."""

    weights_bytes: int
    kv_cache_bytes: int
    workspace_bytes: int
    host_weights_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Everything on the device."""
        return self.weights_bytes + self.kv_cache_bytes + self.workspace_bytes


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One known model: it lies on this machine, this daemon has been told to get it, or the catalog has it.

    Attributes:
        id: the name that requests use.
        status: "failed" is a load, a download or an engine that ended with `error`.
        progress: while it is downloaded or loaded.
        source: where its files came from; see `ResolvedModel`.
        path: its folder on this machine; None while it would have to be downloaded.
        num_streams: leases that are held.
        expires_at: when it will be unloaded unless somebody uses it, in Unix seconds; None is never, or
            not while it is in use.
        is_pinned: never unloaded for being idle, nor for the sake of a request.
        memory, quantization, device, max_model_len: of a loaded model.
        dtype, kv_cache_dtype: what a loaded model computes in, and what its keys and values are kept in.
        deterministic: whether no bit of its answers depends on what is computed beside them.
    """

    id: str
    status: Phase
    progress: StageProgress | None = None
    error: OndolError | None = None
    source: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    num_streams: int = 0
    expires_at: float | None = None
    is_pinned: bool = False
    memory: MemoryUse | None = None
    quantization: str | None = None
    device: str | None = None
    max_model_len: int | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    deterministic: bool | None = None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A name that requests may use now.

    Attributes:
        created: when it was loaded, else when its folder last changed, in Unix seconds.
        max_model_len: tokens of prompt plus answer; None before it is loaded.
        source: where its files came from; see `ResolvedModel`.
    """

    name: str
    created: int
    max_model_len: int | None = None
    source: dict[str, Any] = field(default_factory=dict)
