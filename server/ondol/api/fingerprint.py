"""`system_fingerprint`: equal where an equal seed gives equal text.

Knows nothing about requests. Invariant: depends only on what can change the computation.
"""

from hashlib import sha256

import msgspec

from ondol import __version__
from ondol.model_manager.loaded_model import LoadedModel


def system_fingerprint(model: LoadedModel) -> str:
    """A short name for this version, model files, device, precision and quantization."""
    ready = model.engine.ready
    kinds = [(stored.kind, stored.num_weights) for stored in ready.weights.stored]
    computed = (ready.device, ready.dtype, ready.kv_cache_dtype, ready.deterministic)
    parts = (__version__, model.name, model.source, *computed, kinds)
    return f"fp_{sha256(msgspec.json.encode(parts)).hexdigest()[:12]}"
