"""The settings: their names, types, defaults and meanings, and the group that each room reads.

A setting is declared once, as a field of `Settings`; flags, `ONDOL_*` variables, TOML keys and help
texts are derived from it. Knows nothing about where values come from. Invariant: settings are frozen;
a room gets only the group that it needs (see `groups.py`).
"""

from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ondol.config.durations import Duration, parse_duration
from ondol.config.groups import GIB, ApiConfig, EngineSettings, Gibibytes, ManagerSettings
from ondol.config.quantization import (
    ComputeDtype,
    Method,
    ModuleNames,
    NoMainWeights,
    NoOffload,
    OutlierThreshold,
    QuantizationSettings,
    QuantStorage,
    QuantType,
)
from ondol.errors import ConfigError

ENV_PREFIX = "ONDOL_"
AUTO = "auto"


def _none_if_auto(value: object) -> object:
    return None if value == AUTO else value


def _as_list(value: object) -> object:
    """One text, or several joined by commas, as environment variables and TOML strings give them."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    return tuple(part.strip() if isinstance(part, str) else part for part in parts)


def _without_empty_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(not key.get_secret_value() for key in keys):
        raise ValueError("an API key must not be empty")
    return keys


def _default_home() -> Path:
    return platformdirs.user_data_path("ondol")


PositiveOrAuto = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none_if_auto)]
BytesOrAuto = Annotated[Annotated[ByteSize, Field(gt=0)] | None, BeforeValidator(_none_if_auto)]
NameOrAuto = Annotated[Annotated[str, Field(min_length=1)] | None, BeforeValidator(_none_if_auto)]
ApiKeys = Annotated[
    tuple[SecretStr, ...], NoDecode, BeforeValidator(_as_list), AfterValidator(_without_empty_keys)
]
KeepAlive = Annotated[float, BeforeValidator(parse_duration), AfterValidator(Duration)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_list)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


class Settings(BaseSettings):
    """All settings, flat and frozen; built by `load_settings`, or directly from keywords in tests."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    model: str = Field("starter", description="Model to serve: a folder, a Hub id or a catalog name.")
    host: str = Field("127.0.0.1", description="Address to listen on. Other than loopback needs an API key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the weights; auto is float32 on CPU, the checkpoint's own on GPU."
    )
    quantization: Method = Field(
        "none", description="Quantize the weights on load; auto takes the most precise choice that fits."
    )
    quantize_lm_head: bool = Field(False, description="Quantize the language-model head too.")
    bnb_4bit_compute_dtype: ComputeDtype = Field(
        "auto", description="Dtype of the products with 4-bit weights; auto is the model's."
    )
    bnb_4bit_use_double_quant: bool = Field(
        False, description="Quantize the scales of 4-bit blocks again: 4.127 instead of 4.5 bits per weight."
    )
    bnb_4bit_quant_storage: QuantStorage = Field(
        "uint8", description="Dtype of the tensors that 4-bit codes are packed in; the bytes are the same."
    )
    bnb_4bit_quant_type: QuantType = Field(
        "auto", description="As in BitsAndBytesConfig; the setting quantization decides, this must agree."
    )
    llm_int8_skip_modules: ModuleNames = Field(
        (), description="Modules that no method quantizes, joined by commas: down_proj, model.layers.0."
    )
    llm_int8_threshold: OutlierThreshold = Field(
        6.0, description="As in BitsAndBytesConfig; only 6.0 or 0.0: activations are not quantized here."
    )
    llm_int8_enable_fp32_cpu_offload: NoOffload = Field(
        False, description="As in BitsAndBytesConfig; only off: models are not split between devices."
    )
    llm_int8_has_fp16_weight: NoMainWeights = Field(
        False, description="As in BitsAndBytesConfig; only off: 16-bit main weights are for training."
    )
    max_model_len: PositiveOrAuto = Field(
        None, description="Longest prompt plus answer, in tokens; auto takes the model's limit, or what fits."
    )
    max_num_seqs: int = Field(64, ge=1, description="Requests that run at the same time; more wait.")
    max_num_batched_tokens: PositiveOrAuto = Field(
        None,
        description="Tokens computed in one step, over all requests; auto takes what the device computes in "
        "a quarter of a second.",
    )
    kv_cache_memory: BytesOrAuto = Field(
        None, description="Memory for the KV cache, as 2GiB, 500MB or bytes; auto lets the engine choose."
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        "auto",
        description="Precision of the KV cache: auto is the model's; fp8 holds twice the tokens of 16 bits.",
    )
    block_size: int = Field(16, ge=1, description="Tokens per block of the KV cache.")
    enable_prefix_caching: bool = Field(
        True, description="Reuse the KV cache of equal beginnings of prompts."
    )
    deterministic: bool = Field(
        False, description="Equal requests get equal answers bit by bit, whatever runs beside them; slower."
    )
    cpu_offload_gb: Gibibytes = Field(
        0.0, description="Host memory in GiB for layers that do not fit the GPU; slow."
    )
    threads: PositiveOrAuto = Field(
        None, description="CPU threads for the model; auto leaves torch's choice."
    )
    max_queue_size: int = Field(
        256, ge=1, description="Requests that may wait for a place; more are refused with status 429."
    )
    max_loaded_models: int = Field(
        1, ge=1, description="Models that are loaded at the same time, the served one included."
    )
    keep_alive: KeepAlive = Field(
        Duration(600),
        description="How long a model stays loaded that nobody uses: 300, 5m, 1h30m, 0, or -1 for ever. The "
        "served one always stays.",
    )
    memory_budget: BytesOrAuto = Field(
        None, description="Memory for all loaded models, as 20GiB; auto takes what is free, less a tenth."
    )
    load_on_request: bool = Field(
        True, description="Load a model of this machine when a request names it and a place is left."
    )
    served_model_name: NameOrAuto = Field(
        None, description="Name in the API; auto takes the folder's or catalog's name."
    )
    chat_template: UserPath | None = Field(
        None, description="Jinja file to use instead of the chat template of the model that is served."
    )
    merge_system_prompt: bool = Field(
        True, description="Put system messages in front of the user's where a template knows no system role."
    )
    api_key: ApiKeys = Field(
        (), description="Key that clients must send; several are joined by commas. None accepts any key."
    )
    api_key_file: UserPath | None = Field(None, description="File with one API key per line.")
    allow_unauthenticated: bool = Field(
        False, description="Listen on a non-loopback address although no API key is set."
    )
    metrics_require_key: bool = Field(
        True, description="Whether /metrics needs an API key, if there are any."
    )
    allowed_hosts: Names = Field(
        (), description="Further names by which browsers may address the daemon, joined by commas; * is any."
    )
    cors_origins: Names = Field(
        (), description="Websites whose pages may use the daemon: https://chat.example.com; * is any."
    )
    web: bool = Field(True, description="Serve the web chat at /.")
    max_body_size: ByteSize = Field(ByteSize(8 * 2**20), gt=0, description="Largest request body taken.")
    shutdown_grace_s: float = Field(
        30.0, ge=0, description="Seconds that open answers may take to finish after Ctrl-C or SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    home: UserPath = Field(default_factory=_default_home, description="Folder of the model store.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave keywords alone: `resolve_settings` reads the other sources one by one for their origins."""
        return (init_settings,)

    def api(self) -> ApiConfig:
        """The front door's group; raises ConfigError when `api_key_file` cannot be read."""
        keys = tuple(key.get_secret_value() for key in self.api_key)
        if self.api_key_file is not None:
            keys += _read_key_file(self.api_key_file)
        return ApiConfig(
            host=self.host,
            port=self.port,
            api_keys=keys,
            allow_unauthenticated=self.allow_unauthenticated,
            max_body_bytes=int(self.max_body_size),
            shutdown_grace_s=self.shutdown_grace_s,
            home=self.home,
            allowed_hosts=self.allowed_hosts,
            cors_origins=self.cors_origins,
            metrics_require_key=self.metrics_require_key,
            fit_flags=(
                *("--home", str(self.home), "--device", self.device),
                *("--dtype", self.dtype, "--kv-dtype", self.kv_cache_dtype),
                *("--cpu-offload-gb", str(self.cpu_offload_gb)),
            ),
            web=self.web,
        )

    def engine(self) -> EngineSettings:
        """The engine's group."""
        return EngineSettings(
            device=self.device,
            dtype=self.dtype,
            quantization=QuantizationSettings(
                method=self.quantization,
                compute_dtype=self.bnb_4bit_compute_dtype,
                use_double_quant=self.bnb_4bit_use_double_quant,
                quant_storage=self.bnb_4bit_quant_storage,
                skip_modules=self.llm_int8_skip_modules,
                quantize_lm_head=self.quantize_lm_head,
            ),
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_cache_bytes=None if self.kv_cache_memory is None else int(self.kv_cache_memory),
            kv_cache_dtype=self.kv_cache_dtype,
            block_size=self.block_size,
            enable_prefix_caching=self.enable_prefix_caching,
            deterministic=self.deterministic,
            offload_bytes=int(self.cpu_offload_gb * GIB),
            num_threads=self.threads,
            is_quantization_chosen="quantization" in self.model_fields_set,
        )

    def manager(self) -> ManagerSettings:
        """The model manager's group."""
        return ManagerSettings(
            home=self.home,
            max_loaded_models=self.max_loaded_models,
            keep_alive_s=self.keep_alive,
            memory_budget_bytes=None if self.memory_budget is None else int(self.memory_budget),
            load_on_request=self.load_on_request,
            max_queue_size=self.max_queue_size,
            merges_system_prompt=self.merge_system_prompt,
        )


def setting_text(key: str, value: object) -> str:
    """How a terminal shows the value of setting `key`; every API key is masked."""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _size_text(value)
    if value is None:
        return AUTO if accepts_auto(key) else "-"
    return str(value)


def _size_text(size: ByteSize) -> str:
    """The size exactly, in the largest binary unit that divides it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(int(size))


def accepts_auto(key: str) -> bool:
    """Whether the word "auto" leaves the choice of this setting's value to Ondol."""
    field = Settings.model_fields[key]
    return field.default == AUTO or any(
        isinstance(part, BeforeValidator) and part.func is _none_if_auto for part in field.metadata
    )


def _read_key_file(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API key file {path} cannot be read: {error}") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"the API key file {path} holds no key")
    return keys
