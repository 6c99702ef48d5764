"""What somebody wants loaded: the one argument of the one load path.

Knows nothing about how it is done. The invariant: an order is complete in itself, so that a model can
be loaded again by it after an idle unload or an engine's death.
"""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ondol.model_manager.catalog import catalog_name, is_name, load_catalog, parse_hub_id


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A model and how to load it; None leaves a choice to the settings, then to the catalog's entry.

    Attributes:
        model: a folder, a Hub id or a catalog name.
        served_name: the name that requests use; None takes the model's own.
        quantization: "none", "int8", "nf4", "fp4" or "auto".
        dtype: "auto", "float32", "bfloat16" or "float16".
        max_model_len: tokens of prompt plus output.
        kv_cache_bytes: memory for the KV cache.
        kv_cache_dtype: "auto" or "fp8".
        offload_bytes: host memory for layers that stay there; 0 is no offload.
        deterministic: whether no bit of an answer depends on what is computed beside it.
        chat_template: Jinja source to use instead of the model's own.
        keep_alive_s: how long it stays when nobody uses it; math.inf is for ever, 0 not at all.
        is_pinned: never unloaded for being idle, nor for the sake of a request.
        allow_download: fetch the model if this machine does not have it.
    """

    model: str
    served_name: str | None = None
    quantization: str | None = None
    dtype: str | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: str | None = None
    offload_bytes: int | None = None
    deterministic: bool | None = None
    chat_template: str | None = None
    keep_alive_s: float | None = None
    is_pinned: bool = False
    allow_download: bool = True

    @property
    def name(self) -> str:
        """The name under which the model is served, in Unicode's composed form."""
        return normalized(self.served_name or own_name(self.model))

    def loads_like(self, other: "LoadOrder") -> bool:
        """Whether both orders give the same loaded model."""
        return self._form == other._form

    @property
    def _form(self) -> tuple[object, ...]:
        return (
            normalized(self.model),
            self.quantization,
            self.dtype,
            self.max_model_len,
            self.kv_cache_bytes,
            self.kv_cache_dtype,
            self.offload_bytes,
            self.deterministic,
            self.chat_template,
        )


def own_name(model: str) -> str:
    """The name that a model has by itself: the catalog's, the Hub's, or its folder's.

    Says nothing about whether there is such a model.
    """
    if is_name(normalized(model)):
        return catalog_name(normalized(model), load_catalog()) or model
    folder = Path(os.path.expanduser(model))  # Path.expanduser raises for an unknown ~user
    if model and "\0" not in model and folder.is_dir():
        return folder.resolve().name
    source = parse_hub_id(model)
    return model if source is None else source.repo


def normalized(name: str) -> str:
    """The same name in NFC: Hangul typed on a Mac arrives in pieces."""
    return unicodedata.normalize("NFC", name)
