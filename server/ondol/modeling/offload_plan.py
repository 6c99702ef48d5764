"""Which decoder layers stay in host memory, and what that saves of the device's.

Arithmetic over shapes; knows nothing about devices or how layers travel. The invariants: a plan keeps to the
limit that it was made for, and a larger limit never saves less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ondol.errors import ModelRefused

# While one layer computes, the next one is copied.
NUM_BUFFERS = 2
# Parameters start at multiples of this many bytes in a buffer, as memory that CUDA allocates does.
ALIGNMENT = 256
GIB = 2**30


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """Layers that stay in host memory; without layers, nothing does.

    Attributes:
        layers: their indices, ascending, spread evenly over the depth.
        num_layers: of the model.
        parameter_bytes: of their parameters.
        host_bytes: memory that they take in the host, and bytes copied in every step.
        buffer_bytes: device memory of all buffers that they are copied to.
    """

    layers: tuple[int, ...] = ()
    num_layers: int = 0
    parameter_bytes: int = 0
    host_bytes: int = 0
    buffer_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """Device memory that the plan frees; negative where buffers take more than the layers."""
        return self.parameter_bytes - self.buffer_bytes

    def split(self, weights_bytes: int, *, is_host: bool) -> tuple[int, int]:
        """Where a model's weights lie.

        Args:
            weights_bytes: of all parameters.
            is_host: the device is a CPU, whose memory the host's is.

        Returns:
            Bytes on the device, and bytes in host memory beside them.
        """
        device_bytes = weights_bytes - self.saved_bytes
        return (device_bytes + self.host_bytes, 0) if is_host else (device_bytes, self.host_bytes)


def plan_offload(layers: Sequence[nn.Module], limit_bytes: int) -> OffloadPlan:
    """The plan that saves most of the device's memory with at most `limit_bytes` in the host.

    Args:
        layers: a model's decoder layers, which may be on the meta device.
        limit_bytes: 0 is no offload.

    Raises:
        ModelRefused: offload is asked for, but the model does not tell what its layers are.
    """
    if limit_bytes == 0:
        return OffloadPlan()
    if not layers:
        raise ModelRefused(
            "this model does not tell apart its layers, so none of them can stay in host memory: start "
            "without --cpu-offload-gb."
        )
    within = (plan for plan in possible_offloads(layers) if plan.host_bytes <= limit_bytes)
    return max(within, key=lambda plan: plan.saved_bytes, default=OffloadPlan())


def possible_offloads(layers: Sequence[nn.Module]) -> list[OffloadPlan]:
    """Every plan that saves memory, the smallest in host memory first."""
    parameter_bytes = [sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers]
    host_bytes = [stored_bytes(layer) for layer in layers]
    plans = []
    for count in range(NUM_BUFFERS + 1, len(layers) + 1):
        chosen = spread(count, len(layers))
        plan = OffloadPlan(
            layers=chosen,
            num_layers=len(layers),
            parameter_bytes=sum(parameter_bytes[index] for index in chosen),
            host_bytes=sum(host_bytes[index] for index in chosen),
            buffer_bytes=NUM_BUFFERS * max(host_bytes[index] for index in chosen),
        )
        if plan.saved_bytes > 0:
            plans.append(plan)
    return sorted(plans, key=lambda plan: plan.host_bytes)


def smallest_offload(layers: Sequence[nn.Module], needed_bytes: int) -> OffloadPlan | None:
    """The plan with the fewest bytes in host memory that saves `needed_bytes`; None if none does."""
    return next((plan for plan in possible_offloads(layers) if plan.saved_bytes >= needed_bytes), None)


def spread(count: int, num_layers: int) -> tuple[int, ...]:
    """`count` of `num_layers` indices at even distances, so that layers between them hide the copies."""
    return tuple((2 * place + 1) * num_layers // (2 * count) for place in range(count))


def aligned(size_bytes: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def stored_bytes(layer: nn.Module) -> int:
    """What a layer takes in host memory and in a buffer."""
    return sum(aligned(parameter.nbytes) for parameter in layer.parameters())


def offload_flag(host_bytes: int) -> str:
    """The flag that asks for this much, rounded up to hundredths of a GiB."""
    return f"--cpu-offload-gb {math.ceil(100 * host_bytes / GIB) / 100:g}"


def offload_notes(plan: OffloadPlan, limit_bytes: int) -> tuple[str, ...]:
    """What a user should know about a plan that was made for this limit."""
    if limit_bytes == 0:
        return ()
    if not plan.layers:
        return (
            f"--cpu-offload-gb {limit_bytes / GIB:g} is too little: no weights stay in host memory, because "
            f"the buffers for layers that do take as much as {NUM_BUFFERS} of them",
        )
    return (
        f"{len(plan.layers)} of {plan.num_layers} layers stay in host memory: every step copies "
        f"{plan.host_bytes / 2**20:.0f} MiB to the device",
    )
