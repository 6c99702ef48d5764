"""The processor, the GPU, memory and disks.

Knows nothing about networks. Invariant: asking changes nothing and loads no model.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from ondol.cli.diagnosis.finding import Finding
from ondol.cli.diagnosis.software import TorchFacts
from ondol.cli.language import tr
from ondol.cli.sizes import memory_size
from ondol.errors import DeviceUnusable

CPU_FILE = Path("/proc/cpuinfo")
MEMORY_FILE = Path("/proc/meminfo")
# In the order of what they bring; as Linux spells them.
VECTOR_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
X86 = ("x86_64", "AMD64", "i386", "i686")
LITTLE_MEMORY_BYTES = 4 * 2**30
LITTLE_DISK_BYTES = 20 * 10**9
DRIVER_TIMEOUT_S = 20
DRIVER_QUERY = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def cpu(facts: TorchFacts | None, cpu_file: Path = CPU_FILE) -> Finding:
    """The instructions that decide how fast a CPU is; `facts` are torch's, where it works."""
    name = tr("CPU")
    flags = _cpu_flags(cpu_file)
    vectors = [flag for flag in VECTOR_FLAGS if flag in flags]
    parts = [f"{os.cpu_count()} × {platform.machine()}", *vectors]
    if facts:
        parts.append(tr("torch uses {capability}", capability=facts["cpu_capability"]))
    message = ", ".join(parts)
    if platform.machine() in X86 and flags and "avx2" not in flags:
        return Finding(name, "warn", message, tr("Without AVX2 a CPU is slow here; use a GPU."))
    return Finding(name, "ok", message)


def _cpu_flags(cpu_file: Path) -> frozenset[str]:
    """The first processor's flags; empty where the system has no such file or calls them otherwise."""
    if not cpu_file.is_file():
        return frozenset()
    lines = cpu_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def memory(memory_file: Path = MEMORY_FILE) -> Finding:
    """What models on the CPU may take."""
    name = tr("memory")
    if not memory_file.is_file():
        total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Finding(name, "ok", memory_size(total_bytes))
    lines = (line.split() for line in memory_file.read_text(encoding="ascii").splitlines())
    kibibytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    free_bytes, total_bytes = kibibytes["MemAvailable"] * 1024, kibibytes["MemTotal"] * 1024
    message = tr("{free} of {total} are free", free=memory_size(free_bytes), total=memory_size(total_bytes))
    if free_bytes < LITTLE_MEMORY_BYTES:
        advice = tr("End other programs, or choose a small model: `ondol fit MODEL` tells what fits.")
        return Finding(name, "warn", message, advice)
    return Finding(name, "ok", message)


def disk(name: str, folder: Path) -> Finding:
    """The disk that a folder is on, or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    message = tr("{size} free in {folder}", size=f"{free_bytes / 1e9:.1f} GB", folder=folder)
    if not os.access(existing, os.W_OK):
        return Finding(name, "warn", message, tr("{folder} cannot be written to.", folder=existing))
    if free_bytes < LITTLE_DISK_BYTES:
        return Finding(name, "warn", message, tr("Free some space: a 7B model takes about 15 GB."))
    return Finding(name, "ok", message)


def gpu(facts: TorchFacts | None, device: str) -> Finding:
    """The GPU as its driver and torch see it; `device` is the setting, which may insist on one."""
    if facts and facts["gpus"]:
        return Finding("GPU", "ok", "; ".join(_gpu_text(one) for one in facts["gpus"]))
    driver, is_working = _driver()
    if driver is None:
        message, advice = tr("none: models run on the CPU"), ""
    elif not is_working:
        message = tr("the driver does not work: {reason}", reason=driver)
        advice = tr("Install the NVIDIA driver again; `nvidia-smi` must list the GPU.")
    elif facts and not facts["built_for_cuda"]:
        message = tr("{gpu}, but this torch is built for the CPU only", gpu=driver)
        advice = tr("Install a torch that is built for CUDA.")
    else:
        message = tr("{gpu}, but torch cannot use it", gpu=driver)
        advice = tr("Update the NVIDIA driver, or install a torch for the CUDA that it knows.")
    if device == "cuda":
        asked = tr("The settings ask for device cuda; set device to auto or cpu, or repair the GPU.")
        return Finding("GPU", "fail", message, f"{advice} {asked}".strip(), DeviceUnusable.exit_code)
    return Finding("GPU", "warn" if advice else "ok", message, advice)


def _gpu_text(one: TorchFacts) -> str:
    size = memory_size(one["total_bytes"])
    return f"{one['name']}, {size}, compute capability {one['capability']}"


def _driver() -> tuple[str | None, bool]:
    """What nvidia-smi says, and whether it works; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, False
    try:
        done = subprocess.run(
            [program, *DRIVER_QUERY], capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"nvidia-smi > {DRIVER_TIMEOUT_S} s", False
    said = (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip().splitlines()
    return "; ".join(said) if done.returncode == 0 else (said or ["nvidia-smi"])[0], done.returncode == 0
