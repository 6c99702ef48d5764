"""`system_fingerprint`: equal where an equal seed gives equal text.

Knows nothing about requests. Invariant: depends only on what can change the computation.
"""

from hashlib import sha256

import msgspec

from ondol import __version__
from ondol.model_manager.manager import LoadedModel


def system_fingerprint(model: LoadedModel) -> str:
    """A short name for this version, model files, device and precision."""
    ready = model.engine.ready
    parts = (__version__, model.name, model.source, ready.device, ready.dtype)
    return f"fp_{sha256(msgspec.json.encode(parts)).hexdigest()[:12]}"
