"""The settings of quantization on load: BitsAndBytesConfig's fields, under their own names.

Knows nothing about how weights are quantized. Invariant: a field that would change nothing here is
accepted only at a value that asks for nothing; any other is refused with the reason.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_settings import NoDecode

FOUR_BIT_METHODS = ("nf4", "fp4")

# bitsandbytes' defaults: split outliers at 6.0; 0.0 is how it spells "split nothing".
HARMLESS_THRESHOLDS = (6.0, 0.0)


@dataclass(frozen=True, slots=True)
class QuantizationSettings:
    """What to quantize on load; fields mean what `ondol.engine.messages.QuantizationConfig` says."""

    method: str
    compute_dtype: str
    use_double_quant: bool
    quant_storage: str
    skip_modules: tuple[str, ...]
    quantize_lm_head: bool


def _as_names(value: object) -> object:
    """Names joined by commas, as flags, variables and TOML strings give them, or a list of names."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    split = [part.split(",") if isinstance(part, str) else [part] for part in parts]
    return tuple(name.strip() if isinstance(name, str) else name for names in split for name in names)


def _without_empty_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(names):
        raise ValueError("a module name must not be empty")
    return names


def _agrees_with_method(quant_type: str, info: ValidationInfo) -> str:
    method = info.data.get("quantization")
    if method in FOUR_BIT_METHODS and quant_type not in ("auto", method):
        raise ValueError(f"it contradicts the setting quantization, which is {method}")
    return quant_type


def _splits_nothing(threshold: float) -> float:
    if threshold not in HARMLESS_THRESHOLDS:
        raise ValueError(
            "activations are not quantized here, so there are no outliers to set apart; leave it at 6.0"
        )
    return threshold


def _without_offload(enabled: bool) -> bool:
    if enabled:
        raise ValueError("a model is never split between GPU and CPU here; leave it off (see cpu_offload_gb)")
    return enabled


def _without_main_weights(enabled: bool) -> bool:
    if enabled:
        raise ValueError("16-bit main weights are for training; to serve them, set quantization to none")
    return enabled


Method = Literal["none", "int8", "nf4", "fp4", "auto"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
QuantStorage = Literal["uint8", "int8", "float16", "bfloat16", "float32", "float64"]
ModuleNames = Annotated[
    tuple[Annotated[str, Field(max_length=500)], ...],
    NoDecode,
    BeforeValidator(_as_names),
    AfterValidator(_without_empty_names),
]
# Declared after `quantization`, which it is compared with.
QuantType = Annotated[Literal["auto", "nf4", "fp4"], AfterValidator(_agrees_with_method)]
OutlierThreshold = Annotated[float, AfterValidator(_splits_nothing)]
NoOffload = Annotated[bool, AfterValidator(_without_offload)]
NoMainWeights = Annotated[bool, AfterValidator(_without_main_weights)]
