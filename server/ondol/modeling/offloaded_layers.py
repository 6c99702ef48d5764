"""Decoder layers whose weights stay in host memory and visit the device when they are needed.

Every layer belongs to one of a few device buffers, and once the weights are in, its parameters are views of
that buffer for good: a step copies bytes and allocates nothing. When a layer has computed, the next one of
its buffer is copied, the first one after the last, so that copies go on beside the layers in between and
from step to step. Knows modules and bytes, nothing about what a layer computes. Invariant: when a layer
computes, its buffer holds its weights, also after a step that failed half-way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ondol.modeling.host_memory import HostMemory
from ondol.modeling.layer_copies import ImmediateCopies, LayerCopies, SideStreamCopies
from ondol.modeling.offload_plan import NUM_BUFFERS, aligned, stored_bytes


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in its layer's memory a parameter lies."""

    module: nn.Module
    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype

    def point_at(self, memory: Tensor) -> None:
        """Make the parameter a view of its layer's memory, [bytes] uint8."""
        size_bytes = self.shape.numel() * self.dtype.itemsize
        view = memory[self.start : self.start + size_bytes].view(self.dtype).view(self.shape)
        setattr(self.module, self.name, nn.Parameter(view, requires_grad=False))


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer, its parameters' places and its bytes in host memory."""

    module: nn.Module
    places: tuple[_Place, ...]
    host: Tensor

    def point_at(self, memory: Tensor) -> None:
        """Make all parameters views of this memory."""
        for place in self.places:
            place.point_at(memory)


class OffloadedLayers:
    """Layers in host memory; their parameters are there, uninitialized, until `start`.

    Args:
        modules: the layers in the order in which they run, without memory yet (on the meta device).
        device: what computes.

    Raises:
        DoesNotFit: the host's memory cannot be had.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        sizes = [stored_bytes(module) for module in modules]
        self._device = device
        self._memory = HostMemory(sum(sizes), device)
        self._layers = [
            _Layer(module, tuple(_places(module)), host)
            for module, host in zip(modules, torch.split(self._memory.data, sizes), strict=True)
        ]
        self._buffer_bytes = max(sizes)
        # Which layer each buffer holds, or will once its copy is done.
        self._held: list[int | None] = [None] * NUM_BUFFERS
        self._copies: LayerCopies = ImmediateCopies()
        self._buffers: list[Tensor] = []
        for layer in self._layers:
            layer.point_at(layer.host)

    def start(self, copies: LayerCopies | None = None) -> None:
        """Have the layers compute on the device from here on; call it once, when all weights are in.

        Args:
            copies: how weights travel; None chooses by the device.
        """
        assert not self._buffers, "it is started once"
        on_gpu = self._device.type == "cuda"
        self._copies = copies or (
            SideStreamCopies(self._device, NUM_BUFFERS) if on_gpu else ImmediateCopies()
        )
        self._buffers = [
            torch.empty(self._buffer_bytes, dtype=torch.uint8, device=self._device)
            for _ in range(NUM_BUFFERS)
        ]
        for place, layer in enumerate(self._layers):
            layer.point_at(self._buffers[place % NUM_BUFFERS])
            layer.module.register_forward_pre_hook(partial(self._before, place))
            layer.module.register_forward_hook(partial(self._after, place))

    def _before(self, place: int, module: nn.Module, inputs: object) -> None:
        """The layer at `place` is about to compute."""
        del module, inputs
        self._fetch(place)  # where it is not on its way already: at first, and after a step that failed
        self._copies.wait(place % NUM_BUFFERS)

    def _after(self, place: int, module: nn.Module, inputs: object, output: object) -> None:
        """The layer at `place` has computed: its buffer is free for the next one."""
        del module, inputs, output
        following = place + NUM_BUFFERS
        self._fetch(following if following < len(self._layers) else place % NUM_BUFFERS)

    def _fetch(self, place: int) -> None:
        buffer = place % NUM_BUFFERS
        if self._held[buffer] == place:
            return
        source = self._layers[place].host
        self._copies.start(buffer, self._buffers[buffer][: source.numel()], source)
        self._held[buffer] = place


def _places(layer: nn.Module) -> Iterator[_Place]:
    start = 0
    for module in layer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield _Place(module, name, start, parameter.shape, parameter.dtype)
            start += aligned(parameter.nbytes)
