"""Models of real shapes with random weights, built where they run: nothing is read and nothing is copied.

Speed does not depend on what the weights say, only on how they are stored. Knows storage kinds and modules,
nothing about measuring. Invariant: codes take every value, and what they stand for is spread like the plain
weights, so that hidden states stay finite and routers spread their rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from benchmarks.gpu.shapes import ModelShape
from ondol.kernels.backend import Kernels
from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix
from ondol.modeling.kernel_module import use_kernels
from ondol.modeling.layer_factory import Experts, LayerFactory, PlainLayers, Projection
from ondol.modeling.layers import ExpertsShape, ProjectionShape, RMSNorm
from ondol.modeling.loading import Model, build_model, place_on_host
from ondol.modeling.offload_plan import OffloadPlan, plan_offload, stored_bytes
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear
from ondol.modeling.quantization.parts import MatrixPart

WEIGHT_STD = 0.02
# Standard deviation of what random codes stand for, before the scale: 16 values of nf4, integers of -8 to 7,
# integers of -127 to 127.
CODE_STD: Mapping[str, float] = MappingProxyType({"nf4": 0.563, "int4": 4.61, "int8": 73.6})

FORMATS: Mapping[str, QuantizedFormat] = MappingProxyType(
    {
        "int8": QuantizedFormat("int8", group_size=None),
        "nf4": QuantizedFormat("nf4", group_size=64),
        "int4": QuantizedFormat("int4", group_size=128, scale_dtype=torch.float16),
    }
)


@dataclass(frozen=True, slots=True)
class NoCheckpoint:
    """Where random matrices come from: nowhere."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """No tensors."""
        del prefix
        return ()

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Never asked to: the matrices are filled by `fill_random`."""
        raise NotImplementedError(f"{prefix} of {part} comes from no checkpoint, nor do {list(tensors)}")


class RandomLayers:
    """A LayerFactory whose matrices are quantized in one format; head and routers stay as they are."""

    def __init__(self, fmt: QuantizedFormat, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._format = fmt
        self._plain = PlainLayers(dtype)

    def projection(self, shape: ProjectionShape) -> Projection:
        """All parts fused in one matrix."""
        matrix = QuantizedMatrix(self._format, shape.widths, shape.num_in)
        return QuantizedLinear(shape, matrix, NoCheckpoint(), self.dtype, self.dtype)

    def experts(self, shape: ExpertsShape) -> Experts:
        """Gate and up in one stack, down in another."""
        hidden, width = shape.hidden_size, shape.intermediate_size
        gate_up = QuantizedMatrix(self._format, (width, width), hidden, shape.num_experts)
        down = QuantizedMatrix(self._format, (hidden,), width, shape.num_experts)
        return QuantizedExperts(shape, [gate_up], down, NoCheckpoint(), self.dtype)

    def head(self, shape: ProjectionShape) -> Projection:
        """Plain."""
        return self._plain.head(shape)

    def router(self, shape: ProjectionShape) -> Projection:
        """Plain."""
        return self._plain.router(shape)


def layers_of(kind: str, dtype: torch.dtype) -> LayerFactory:
    """The factory of a storage kind: "bf16" (plain, in `dtype`) or one of FORMATS."""
    return PlainLayers(dtype) if kind == "bf16" else RandomLayers(FORMATS[kind], dtype)


def build_random(
    shape: ModelShape,
    kind: str,
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels,
    host_share: float = 0.0,
) -> tuple[Model, OffloadPlan]:
    """A model ready for `prepare`, its weights drawn with a fixed seed, and which layers lie in host memory.

    Args:
        shape: the model's sizes.
        kind: how its weights are stored, see `layers_of`.
        dtype: of hidden states and of what is not quantized.
        device: where it is built.
        kernels: what it computes with.
        host_share: of the layers' bytes that may stay in host memory.
    """
    model = build_model(CONFIG_MAPPING[shape.model_type](**shape.config), layers_of(kind, dtype))
    layers = model.decoder_layers()
    offload = plan_offload(layers, int(host_share * sum(stored_bytes(layer) for layer in layers)))
    offloaded = place_on_host(model, offload, device)
    model.allocate(device)
    use_kernels(model.named_modules(), kernels)
    generator = torch.Generator(device).manual_seed(0)
    for _, module in model.named_modules():
        fill_random(module, generator)
    if offloaded is not None:
        offloaded.start()
    return model, offload


def fill_random(module: nn.Module, generator: torch.Generator) -> None:
    """Fill a module's own parameters; those of its children are left to them."""
    if isinstance(module, RMSNorm):
        module.weight.fill_(1.0)
    elif isinstance(module, QuantizedMatrix):
        _fill_matrix(module, generator)
    else:
        for parameter in module.parameters(recurse=False):
            _fill(parameter, generator, lambda drawn: drawn.normal_(std=WEIGHT_STD, generator=generator))


def _fill_matrix(matrix: QuantizedMatrix, generator: torch.Generator) -> None:
    assert matrix.scales is not None
    codes = (-127, 128) if matrix.fmt.kind == "int8" else (0, 256)
    _fill(matrix.packed, generator, lambda drawn: drawn.random_(*codes, generator=generator))
    scale = WEIGHT_STD / CODE_STD[matrix.fmt.kind]
    scales = (0.5 * scale, 1.5 * scale)
    _fill(matrix.scales, generator, lambda drawn: drawn.uniform_(*scales, generator=generator))


def _fill(parameter: Tensor, generator: torch.Generator, draw: Callable[[Tensor], object]) -> None:
    """Draw on the generator's device, also what lies in host memory: a CPU takes minutes for a model."""
    if parameter.device == generator.device:
        draw(parameter)
        return
    drawn = torch.empty_like(parameter, device=generator.device)
    draw(drawn)
    parameter.copy_(drawn)
