"""What a model folder's own files say about the model, for people who choose one.

Reads JSON only: neither weights nor the libraries that compute. The invariant: what a file does not
say is None, never a default.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """The facts of config.json and tokenizer_config.json that decide how a model is used.

    Attributes:
        model_type: transformers' name of the architecture.
        dtype: of the weights that are not quantized.
        quantization: method and bits, e.g. "gptq 4-bit"; None for weights that are not quantized.
        context_length: in tokens.
        has_chat_template: without one, only completions work.
    """

    model_type: str | None
    dtype: str | None
    quantization: str | None
    context_length: int | None
    has_chat_template: bool

    @classmethod
    def read(cls, folder: Path) -> "PublishedConfig":
        """Never raises for what a file holds: a damaged one says nothing."""
        config = _json_object(folder / "config.json")
        context_length = config.get("max_position_embeddings")
        return cls(
            model_type=_text(config.get("model_type")),
            dtype=_text(config.get("dtype") or config.get("torch_dtype")),
            quantization=quantization_text(config.get("quantization_config")),
            context_length=context_length if isinstance(context_length, int) else None,
            has_chat_template=_has_chat_template(folder),
        )


def quantization_text(settings: object) -> str | None:
    """A quantization_config in two words: "gptq 4-bit", "bitsandbytes nf4", "fp8"."""
    if not isinstance(settings, dict) or not settings:
        return None
    method = _text(settings.get("quant_method")) or "unknown"
    if method == "bitsandbytes":
        return f"bitsandbytes {'int8' if settings.get('load_in_8bit') else _four_bit_type(settings)}"
    bits = settings.get("bits") or settings.get("w_bit")
    if isinstance(bits, int):
        return f"{method} {bits}-bit"
    details = _text(settings.get("format"))
    return f"{method} {details}" if details else method


def _four_bit_type(settings: dict[str, Any]) -> str:
    return _text(settings.get("bnb_4bit_quant_type")) or "fp4"  # the library's own default


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in TEMPLATE_FILES):
        return True
    return bool(_json_object(folder / "tokenizer_config.json").get("chat_template"))


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
