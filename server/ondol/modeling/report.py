"""How a model's weights are stored: counted over its modules, not over what was asked for.

Knows the modules that hold weights and nothing about loading. Invariant: the bytes of all entries are
the bytes of all parameters.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from ondol.kernels.quantized import NestedScales, QuantizedMatrix
from ondol.modeling.layers import Embedding, ExpertStack, Linear, RMSNorm
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Weights of one kind in one container; see `ondol.engine.stored_weights.StoredWeights`."""

    kind: str
    container: str
    num_modules: int
    num_weights: int
    num_bytes: int
    bits_per_weight: float


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """See `ondol.engine.stored_weights.WeightsReport`."""

    stored: tuple[StoredWeights, ...]
    unquantized: tuple[str, ...]


@dataclass(slots=True)
class _Count:
    num_modules: int = 0
    num_weights: int = 0
    num_bytes: int = 0
    # Without tables, which are constants of a format and cost the same for any number of weights.
    weight_bytes: int = 0


@dataclass(slots=True)
class _Inventory:
    counts: defaultdict[tuple[str, str], _Count] = field(default_factory=lambda: defaultdict(_Count))
    plain_names: dict[str, None] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def add_plain(self, names: tuple[str, ...], tensor: Tensor) -> None:
        """A floating-point tensor that holds the weights (or, without names, biases) of modules."""
        if id(tensor) in self.seen:  # tied
            return
        self.seen.add(id(tensor))
        dtype = _dtype_name(tensor)
        count = self.counts[dtype, dtype]
        count.num_modules += len(names)
        count.num_weights += tensor.numel()
        count.num_bytes += tensor.nbytes
        count.weight_bytes += tensor.nbytes
        self.plain_names.update(dict.fromkeys(names))

    def add_quantized(self, num_modules: int, matrix: QuantizedMatrix) -> None:
        """A matrix, or a stack of them, that holds this many modules."""
        count = self.counts[matrix.fmt.kind, _dtype_name(matrix.packed)]
        table_bytes = 0 if matrix.nested is None else matrix.nested.values.nbytes
        count.num_modules += num_modules
        count.num_weights += matrix.num_weights
        count.num_bytes += matrix.num_bytes
        count.weight_bytes += matrix.num_bytes - table_bytes


class HasModules(Protocol):
    """A model; `nn.Module` is one."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules by their paths, itself included."""
        ...


def report_weights(model: HasModules) -> WeightsReport:
    """Count the weights of a model; tensors on the meta device count as if they were allocated."""
    inventory = _Inventory()
    for path, module in model.named_modules():
        _add(inventory, path, module)
    stored = (
        StoredWeights(
            kind=kind,
            container=container,
            num_modules=count.num_modules,
            num_weights=count.num_weights,
            num_bytes=count.num_bytes,
            bits_per_weight=8 * count.weight_bytes / count.num_weights,
        )
        for (kind, container), count in inventory.counts.items()
    )
    return WeightsReport(
        stored=tuple(sorted(stored, key=lambda entry: -entry.num_bytes)),
        unquantized=compress_names(inventory.plain_names),
    )


def compress_names(names: dict[str, None]) -> tuple[str, ...]:
    """Module names with every index as `*`, each once, in order of appearance."""
    return tuple(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names))


def _add(inventory: _Inventory, path: str, module: nn.Module) -> None:
    match module:
        case Linear():
            inventory.add_plain(module.shape.names, module.weight)
            _add_bias(inventory, module.bias)
        case Embedding() | RMSNorm():
            inventory.add_plain((module.name,), module.weight)
        case ExpertStack():
            gates, ups, downs = zip(*module.shape.projections(), strict=True)
            inventory.add_plain(gates + ups, module.gate_up)
            inventory.add_plain(downs, module.down)
        case QuantizedLinear():
            inventory.add_quantized(len(module.shape.names), module.matrix)
            _add_bias(inventory, module.bias)
        case QuantizedExperts():
            for stack in module.stacks():
                inventory.add_quantized(len(stack.part_rows) * module.shape.num_experts, stack)
        case _ if not _is_inside_matrix(module):
            name = path.removeprefix("network.")  # transformers' model inside ours
            for index, parameter in enumerate(module.parameters(recurse=False)):
                inventory.add_plain((name,) if index == 0 else (), parameter)


def _is_inside_matrix(module: nn.Module) -> bool:
    return isinstance(module, QuantizedMatrix | NestedScales)


def _add_bias(inventory: _Inventory, bias: nn.Parameter | None) -> None:
    if bias is not None:
        inventory.add_plain((), bias)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
