"""The groups of settings that rooms get.

Knows nothing about where values come from. The invariant: frozen; a room gets the group that it reads, not
all settings.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ondol.config.quantization import QuantizationSettings

GIB = 2**30
Gibibytes = Annotated[float, Field(ge=0, le=2**20, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """What the front door reads; `api_keys` are secrets, an empty tuple accepts any key.

    `fit_flags` make `ondol fit` judge by this daemon's store, device and dtype; `web` is the page at /.
    """

    host: str
    port: int
    api_keys: tuple[str, ...]
    allow_unauthenticated: bool
    max_body_bytes: int
    shutdown_grace_s: float
    home: Path
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    metrics_require_key: bool = True
    fit_flags: tuple[str, ...] = ()
    web: bool = True


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine is asked for; fields mean what `ondol.engine.messages.EngineConfig` says.

    Attributes:
        is_quantization_chosen: the user named a method, be it "none".
    """

    device: str
    dtype: str
    quantization: QuantizationSettings
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int | None
    kv_cache_bytes: int | None
    block_size: int
    enable_prefix_caching: bool
    num_threads: int | None
    is_quantization_chosen: bool = False
    kv_cache_dtype: str = "auto"
    deterministic: bool = False
    offload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the model manager reads.

    Attributes:
        home: folder of the model store.
        max_loaded_models: models that are loaded at the same time.
        keep_alive_s: how long a model stays that nobody uses; math.inf is for ever.
        memory_budget_bytes: for all models of the device; None measures it.
        load_on_request: requests may name models that are not loaded.
        max_queue_size: requests that may wait for a place in one engine.
        merges_system_prompt: system messages go into the user's where a template knows no system role.
    """

    home: Path
    max_loaded_models: int = 1
    keep_alive_s: float = 600.0
    memory_budget_bytes: int | None = None
    load_on_request: bool = True
    max_queue_size: int = 256
    merges_system_prompt: bool = True
