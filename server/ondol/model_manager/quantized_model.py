"""Makes a quantized copy of a model folder: weights written anew, everything else copied.

Knows files, nothing about number formats. Invariant: the output folder appears complete or not at all.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ondol import __version__
from ondol.errors import ConfigError
from ondol.model_manager.hub.files import OTHER_LAYOUT_PREFIXES, SIDE_SUFFIXES, WEIGHTS_INDEX
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import ResolvedModel
from ondol.model_manager.store import (
    RECORD_FILE,
    check_space,
    disk_full_as_error,
    sync_entry,
    sync_folder,
)
from ondol.modeling.quantization_plan import QuantizationPlan, SaveSettings

# Written anew, or true of the source only.
NOT_COPIED = ("config.json", WEIGHTS_INDEX, RECORD_FILE)


@dataclass(frozen=True, slots=True)
class QuantizedCopy:
    """What was written.

    Attributes:
        path: the folder.
        source_bytes, size_bytes: weights files before and after.
        num_quantized, num_weights: modules that were quantized, and the weights in them.
        unquantized: names of the modules that could have been, and were left.
        notes: what a user should know about it.
    """

    path: Path
    source_bytes: int
    size_bytes: int
    num_quantized: int
    num_weights: int
    unquantized: tuple[str, ...]
    notes: tuple[str, ...]


def quantize_model(
    source: ResolvedModel, output: Path, settings: SaveSettings, progress: Progress
) -> QuantizedCopy:
    """Write a quantized copy of a model to `output`.

    Raises:
        ConfigError: `output` is not free, or the settings do not fit the model.
        ModelRefused: the source is corrupt, quantized already, or unsupported.
        DoesNotFit: the disk has no room.
    """
    check_output(output)
    plan = QuantizationPlan(source.path, settings)
    side_files = list(_side_files(source.path))
    with _new_folder(output) as folder:
        check_space(folder, plan.size_bytes + sum(file.stat().st_size for file in side_files))
        with progress.bar(f"quantizing {source.name} to {settings.method}", plan.source_bytes) as bar:

            def advance(done_bytes: int, total_bytes: int) -> None:
                del total_bytes
                bar.update(done_bytes - bar.n)

            plan.write(folder, advance)
        for file in side_files:
            shutil.copyfile(file, folder / file.name)
        record = {
            "kind": "quantized",
            "method": settings.method,
            "by": f"ondol {__version__}",
            "source": source.source,
        }
        (folder / RECORD_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    return QuantizedCopy(
        path=output,
        source_bytes=plan.source_bytes,
        size_bytes=sum(file.stat().st_size for file in output.glob("*.safetensors")),
        num_quantized=plan.num_quantized,
        num_weights=plan.num_weights,
        unquantized=tuple(plan.unquantized),
        notes=_notes(settings, is_sparse=plan.is_sparse),
    )


def check_output(output: Path) -> None:
    """Raise ConfigError unless the folder is new or empty."""
    try:
        is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from error
    if not is_free:
        raise ConfigError(f"--output {output} exists and is not an empty folder: choose another.")


def _side_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        is_side = file.name.endswith(SIDE_SUFFIXES) and not file.name.startswith(OTHER_LAYOUT_PREFIXES)
        if is_side and file.name not in NOT_COPIED and file.is_file():
            yield file


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"--output {target}: {error.strerror}") from error
    try:
        with disk_full_as_error(folder):
            yield folder
            sync_folder(folder)
            folder.chmod(0o755)  # mkdtemp's 0700 would hide the model from a daemon of another user
            folder.rename(target)  # replaces an empty folder
            sync_entry(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _notes(settings: SaveSettings, *, is_sparse: bool) -> tuple[str, ...]:
    notes = []
    if settings.method == "int4":
        notes.append(
            "int4 is rounded to nearest and stored in GPTQ's format; it is not GPTQ, which calibrates"
        )
    elif is_sparse:
        notes.append("transformers cannot read the experts of this model in this form; Ondol can")
    return tuple(notes)
