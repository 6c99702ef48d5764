"""Where a figure comes from: versions, commit, machine, model.

Knows nothing about the figures. A figure without these cannot be compared with another one, so the
JSON carries all of them. Invariant: what cannot be found out is None, never a guess.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ondol

MODEL_RECORD = "ondol.json"
GIT_TIMEOUT_S = 10.0


def provenance(packages: Sequence[str]) -> dict[str, Any]:
    """Time (UTC), versions of Ondol, Python and the named packages, commit, and machine."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "ondol": ondol.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "commit": commit_of(Path(__file__)),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Cores this process may use, the processor's name, memory, kernel, and load average (1, 5, 15 min)."""
    return {
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_name(Path("/proc/cpuinfo")),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": load_average(),
    }


def load_average() -> list[float] | None:
    """Runnable processes, averaged over 1, 5 and 15 minutes; None where the system does not tell."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def commit_of(source_file: Path) -> dict[str, Any] | None:
    """Commit that the file is part of, and whether the tree differs from it; None outside git.

    The file must be tracked: an installed package may lie inside somebody else's repository.
    """
    if _git(source_file.parent, "ls-files", "--error-unmatch", source_file.name) is None:
        return None
    commit = _git(source_file.parent, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"id": commit, "is_dirty": bool(_git(source_file.parent, "status", "--porcelain"))}


def model_record(model_folder: Path) -> dict[str, Any] | None:
    """What the store wrote down when it took the model in: source and hash."""
    try:
        record = json.loads((model_folder / MODEL_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name(cpuinfo: Path) -> str | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
