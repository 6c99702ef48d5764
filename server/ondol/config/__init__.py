"""Settings: the only room that reads the environment.

Knows nothing about engines, HTTP or terminals. Invariant: each setting is declared once, as a field
of `Settings`, and each value knows its origin.
"""

from ondol.config.durations import parse_duration
from ondol.config.groups import ApiConfig, EngineSettings, ManagerSettings
from ondol.config.loading import Origin, OriginKind, flag_name, load_settings, resolve_settings
from ondol.config.quantization import QuantizationSettings
from ondol.config.settings import (
    AUTO,
    ENV_PREFIX,
    Settings,
    accepts_auto,
    setting_text,
)

__all__ = [
    "AUTO",
    "ENV_PREFIX",
    "ApiConfig",
    "EngineSettings",
    "ManagerSettings",
    "Origin",
    "OriginKind",
    "QuantizationSettings",
    "Settings",
    "accepts_auto",
    "flag_name",
    "load_settings",
    "parse_duration",
    "resolve_settings",
    "setting_text",
]
