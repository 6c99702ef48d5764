"""Python, the libraries, torch and the compiler.

Knows nothing about hardware. Invariant: torch is imported by another process only.
"""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ondol.cli.diagnosis.finding import Finding
from ondol.cli.language import tr
from ondol.errors import DeviceUnusable, OndolError

DISTRIBUTION = "ondol"
PROBE_TIMEOUT_S = 180
COMPILERS = ("c++", "g++", "clang++")

TorchFacts = Mapping[str, Any]


def python() -> Finding:
    """Whether this Python is one that Ondol is made for."""
    message = f"{platform.python_version()} ({sys.executable})"
    wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Finding("Python", "ok", message)
    advice = tr("Install Python {wanted} and Ondol with it.", wanted=wanted)
    return Finding("Python", "fail", message, advice, OndolError.exit_code)


def libraries() -> Finding:
    """Whether everything that Ondol requires is installed, in a version that it works with."""
    name = tr("libraries")
    requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    required = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [f"{one.name}{one.specifier}" for one in required if not _is_installed(one)]
    if not wrong:
        return Finding(name, "ok", tr("{num} installed", num=len(required)))
    message = tr("missing or of another version: {names}", names=", ".join(wrong))
    quoted = " ".join(f'"{requirement}"' for requirement in wrong)
    advice = tr("Run `{command}`.", command=f"{sys.executable} -m pip install {quoted}")
    return Finding(name, "fail", message, advice, OndolError.exit_code)


def _is_installed(requirement: Requirement) -> bool:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def torch_build() -> tuple[Finding, TorchFacts | None]:
    """Whether torch can be imported, and what it says about itself; None if it cannot."""
    command = [sys.executable, "-m", "ondol.cli.diagnosis.torch_probe"]
    advice = tr(
        "Install torch again: `{command}`.",
        command=f"{sys.executable} -m pip install --force-reinstall torch",
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        message = tr("importing it takes longer than {seconds} s", seconds=PROBE_TIMEOUT_S)
        return Finding("torch", "fail", message, advice, DeviceUnusable.exit_code), None
    if done.returncode != 0:
        last_line = next(iter(done.stderr.strip().splitlines()[-1:]), "")
        message = tr("cannot be imported: {reason}", reason=last_line or f"exit {done.returncode}")
        return Finding("torch", "fail", message, advice, DeviceUnusable.exit_code), None
    facts: TorchFacts = json.loads(done.stdout)
    build = f"CUDA {facts['built_for_cuda']}" if facts["built_for_cuda"] else tr("for the CPU only")
    message = tr(
        "{version}, {build}, {threads} threads",
        version=facts["version"],
        build=build,
        threads=facts["num_threads"],
    )
    return Finding("torch", "ok", message), facts


def compiler(facts: TorchFacts | None) -> Finding:
    """Whether kernels can be compiled: torch's for the CPU need a C++ compiler, those for a GPU Triton."""
    name = tr("compiler")
    found = next((path for path in map(shutil.which, COMPILERS) if path), None)
    needs_triton = bool(facts and facts["gpus"] and not facts["has_triton"])
    if found is None:
        advice = tr("Install g++ or clang, for instance the package build-essential.")
        return Finding(name, "warn", tr("no C++ compiler: kernels cannot be compiled"), advice)
    if needs_triton:
        advice = tr("Run `{command}`.", command=f"{sys.executable} -m pip install triton")
        return Finding(name, "warn", tr("{path}, but no Triton for the GPU", path=found), advice)
    return Finding(name, "ok", found)
