"""Lets the engine be imported where only torch, triton and transformers are installed.

A lent GPU machine has no network and no `ondol` package. Here the folders of this checkout go on the import
path, and what the engine imports but does not need to compute tokens is stood in for: structs that are sent
nowhere, grammars that nobody asks for, settings that nobody reads. What is installed is used. Knows nothing
about measuring. Invariant: no stand-in is on the way from token ids to token ids.
"""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, dataclass_transform

CHECKOUT = Path(__file__).resolve().parents[2]


def prepare() -> tuple[str, ...]:
    """Make `ondol` and the tests' support importable; returns what had to be stood in for."""
    for folder in (CHECKOUT / "tests", CHECKOUT, CHECKOUT / "server"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return tuple(
        name
        for name, stand_in in (
            ("msgspec", _stand_in_msgspec),
            ("llguidance", _stand_in_llguidance),
            ("pydantic_settings", _skip_settings),
        )
        if not _is_importable(name) and stand_in() is None
    )


def _is_importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def _stand_in_msgspec() -> None:
    module = ModuleType("msgspec")
    module.Struct = Struct  # type: ignore[attr-defined]
    sys.modules["msgspec"] = module


def _stand_in_llguidance() -> None:
    for name in ("llguidance", "llguidance.hf", "llguidance.numpy"):
        sys.modules[name] = NamesOnly(name)


def _skip_settings() -> None:
    """`ondol.config`'s modules can be imported, its `__init__`, which needs pydantic, is passed over."""
    package = ModuleType("ondol.config")
    package.__path__ = [str(CHECKOUT / "server" / "ondol" / "config")]
    sys.modules["ondol.config"] = package


@dataclass_transform()
class _StructMeta(type):
    """Makes a dataclass of every subclass; what steers msgspec's encoding is passed over.

    Not frozen: that would make each message several times dearer than msgspec's own.
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: object
    ) -> "_StructMeta":
        for field, default in namespace.items():
            if isinstance(default, list):
                namespace[field] = dataclasses.field(default_factory=list)
        made = super().__new__(cls, name, bases, namespace)
        kw_only = bool(options.get("kw_only", False))
        return dataclasses.dataclass(kw_only=kw_only, unsafe_hash=True)(made)

    def __init__(cls, *_: object, **__: object) -> None: ...


class Struct(metaclass=_StructMeta):
    """What the engine's messages need of `msgspec.Struct` inside one process."""


class NamesOnly(ModuleType):
    """A module whose every name is a class that cannot be used, only named in annotations."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _refuse, "package": self.__name__})


def _refuse(stand_in: object, *_: object, **__: object) -> None:
    package, name = type(stand_in).__dict__["package"], type(stand_in).__name__
    raise ModuleNotFoundError(f"{package} is not installed, and {name} was called")
