"""Streams a checkpoint's tensors into a model built on the meta device.

One tensor is in host memory at a time, besides the model itself. Every mismatch (missing or
unexpected tensor, wrong shape, values that are not finite) refuses the model and names the tensor
and its file. Knows nothing about architectures.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ondol.errors import ModelRefused
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.layers import WeightSlot

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
        on_progress: called with bytes done and bytes in all, after each tensor.

    Raises:
        ModelRefused: names the tensor and file that do not fit.
    """
    by_name = {slot.name: slot for slot in slots}
    _check_names(by_name, checkpoint, ignored)
    done_bytes = 0
    for name, tensor in checkpoint.tensors():
        slot = by_name.get(name)
        if slot is not None:
            _fill(slot, tensor, checkpoint)
        done_bytes += tensor.nbytes
        if on_progress is not None:
            on_progress(done_bytes, checkpoint.size_bytes)
    if on_progress is not None:  # the files' headers are no tensors, but part of the total
        on_progress(checkpoint.size_bytes, checkpoint.size_bytes)


def _check_names(by_name: dict[str, WeightSlot], checkpoint: Checkpoint, ignored: frozenset[str]) -> None:
    missing = sorted(by_name.keys() - checkpoint.names)
    if missing:
        raise ModelRefused(f"{checkpoint.folder} lacks {_count(missing)}")
    unexpected = sorted(
        name for name in checkpoint.names - by_name.keys() - ignored if not name.endswith(IGNORED_SUFFIXES)
    )
    if unexpected:
        file = checkpoint.file_of(unexpected[0]).name
        raise ModelRefused(
            f"{checkpoint.folder} ({file}) holds {_count(unexpected)} that the model does not use"
        )


def _fill(slot: WeightSlot, tensor: Tensor, checkpoint: Checkpoint) -> None:
    target = slot.view()
    where = f"{slot.name} in {checkpoint.file_of(slot.name)}"
    if tensor.shape != target.shape:
        raise ModelRefused(f"{where} has shape {list(tensor.shape)}, the model needs {list(target.shape)}")
    if not tensor.is_floating_point():
        raise ModelRefused(f"{where} holds {tensor.dtype}, not floating-point weights")
    if not _is_finite(tensor):
        raise ModelRefused(f"{where} holds values that are not finite (NaN or infinity)")
    target.copy_(tensor)


def _is_finite(tensor: Tensor) -> bool:
    # The extremes propagate NaN; one pass instead of a mask as large as the tensor.
    low, high = tensor.float().aminmax() if tensor.element_size() == 1 else tensor.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _count(names: list[str]) -> str:
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return f"the tensor {names[0]}{more}"
