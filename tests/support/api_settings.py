"""The front door's settings with defaults for tests."""

import os
from pathlib import Path

from ondol.config import ApiConfig


def api_config(**changes: object) -> ApiConfig:
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 0,
        "api_keys": (),
        "allow_unauthenticated": False,
        "max_body_bytes": 1 << 20,
        "shutdown_grace_s": 30.0,
        "home": Path(os.devnull) / "no-home",
        # The name under which httpx' in-memory transport asks.
        "allowed_hosts": ("test",),
    }
    return ApiConfig(**(values | changes))
