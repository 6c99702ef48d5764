"""Streams a checkpoint's tensors into a model built on the meta device.

The tensors of one slot are in host memory at a time, besides the model itself. Every mismatch (missing
or unexpected tensor, wrong shape, values that are not finite) refuses the model and names the tensor
and its file. Knows nothing about architectures.
"""

from collections.abc import Callable, Iterable

from ondol.errors import ModelRefused
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.slots import BadTensor, WeightSlot

# Tensors that old checkpoints carry and no model reads: rope frequencies are computed.
IGNORED_SUFFIXES = ("rotary_emb.inv_freq", "attention.masked_bias", "attn.bias_mask")

Progress = Callable[[int, int], None]


def load_weights(
    slots: Iterable[WeightSlot],
    checkpoint: Checkpoint,
    *,
    ignored: frozenset[str] = frozenset(),
    on_progress: Progress | None = None,
) -> None:
    """Fill every slot from the checkpoint.

    Args:
        slots: where each tensor goes; their parameters are already allocated on the device.
        checkpoint: the source.
        ignored: names that may be present and unused (a tied head).
        on_progress: called with bytes done and bytes in all, after each slot.

    Raises:
        ModelRefused: names the tensor and file that do not fit.
    """
    slots = list(slots)
    check_names(frozenset(name for slot in slots for name in slot.names), checkpoint, ignored)
    done_bytes = 0
    for slot in slots:
        tensors = {name: checkpoint.tensor(name) for name in slot.names}
        try:
            slot.fill(tensors)
        except BadTensor as error:
            where = f"{error.name} in {checkpoint.file_of(error.name)}"
            raise ModelRefused(f"{where} {error.reason}") from error
        done_bytes += sum(tensor.nbytes for tensor in tensors.values())
        if on_progress is not None:
            on_progress(done_bytes, checkpoint.size_bytes)
    if on_progress is not None:  # the files' headers are no tensors, but part of the total
        on_progress(checkpoint.size_bytes, checkpoint.size_bytes)


def check_names(needed: frozenset[str], checkpoint: Checkpoint, ignored: frozenset[str]) -> None:
    """Raise ModelRefused unless the checkpoint holds the needed tensors, and no others but the ignored."""
    missing = sorted(needed - checkpoint.names)
    if missing:
        raise ModelRefused(f"{checkpoint.folder} lacks {_count(missing)}")
    unexpected = sorted(
        name for name in checkpoint.names - needed - ignored if not name.endswith(IGNORED_SUFFIXES)
    )
    if unexpected:
        file = checkpoint.file_of(unexpected[0]).name
        raise ModelRefused(
            f"{checkpoint.folder} ({file}) holds {_count(unexpected)} that the model does not use"
        )


def _count(names: list[str]) -> str:
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return f"the tensor {names[0]}{more}"
