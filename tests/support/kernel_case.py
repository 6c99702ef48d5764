"""One call of an operator, made twice: by the kernels under test, and by the torch reference in float32.

Used by the interpreter's tests on the CPU and by benchmarks/gpu on a device; needs torch alone. Inputs are
drawn on the CPU by a fixed seed, so that a case is the same everywhere.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.kv_layer import KVLayer


@dataclass(frozen=True, slots=True)
class Inputs:
    """Draws a case's inputs, on the CPU, and puts them where they are needed.

    Attributes:
        device: where tensors go.
        dtype: what floating-point inputs are rounded to.
        is_wide: whether they are float32 after that, for the reference.
        stale_value: what cache positions hold that nobody may read.
    """

    device: torch.device
    dtype: torch.dtype
    is_wide: bool
    stale_value: float

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        """Normally distributed."""
        return self.put(torch.randn(shape) * std + mean)

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1."""
        return self.put(torch.rand(shape))

    def ranks(self, *shape: int) -> Tensor:
        """Eighths in random order, no two of a row alike: between equals a top k may choose freely."""
        return self.put(torch.rand(shape).argsort(dim=-1) / 8)

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor where it is needed, rounded if it holds floating-point values."""
        if not tensor.is_floating_point():
            return tensor.to(self.device)
        rounded = tensor.to(self.dtype)
        return (rounded.float() if self.is_wide else rounded).to(self.device)


@dataclass(frozen=True, slots=True)
class KernelCase:
    """One call.

    Attributes:
        operator: a field of `Kernels`.
        label: what is odd about it.
        build: its arguments, drawn anew at each call.
        written: the arguments that the operator writes to; they are compared too.
        is_long: real sizes, for a device alone.
    """

    operator: str
    label: str
    build: Callable[[Inputs], tuple[object, ...]]
    written: tuple[int, ...] = ()
    is_long: bool = False

    def __str__(self) -> str:
        return f"{self.operator}-{self.label}"

    def arguments(self, kernels: Kernels, device: torch.device, dtype: torch.dtype) -> tuple[object, ...]:
        """Arguments as the kernels take them."""
        return self._arguments(device, dtype, is_wide=False, reads_stale=kernels.reads_stale_values)

    def error(self, kernels: Kernels, device: torch.device, dtype: torch.dtype) -> float:
        """The largest relative error over everything that the operator gives or writes; NaN never passes."""
        found = self._run(kernels, self.arguments(kernels, device, dtype))
        reference = self._arguments(device, dtype, is_wide=True, reads_stale=True)
        expected = self._run(REFERENCE, reference)
        return max(relative_error(left, right) for left, right in zip(found, expected, strict=True))

    def _arguments(
        self, device: torch.device, dtype: torch.dtype, *, is_wide: bool, reads_stale: bool
    ) -> tuple[object, ...]:
        stale_value = 0.0 if reads_stale else float("nan")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(str(self).encode()))
            return self.build(Inputs(device, dtype, is_wide, stale_value))

    def _run(self, kernels: Kernels, arguments: tuple[object, ...]) -> list[Tensor]:
        with torch.inference_mode():
            given = getattr(kernels, self.operator)(*arguments)
        outputs: Sequence[object] = given if isinstance(given, tuple) else (given,)
        tensors = [*outputs, *(tensor for index in self.written for tensor in _written(arguments[index]))]
        assert all(isinstance(tensor, Tensor) for tensor in tensors)
        return tensors  # type: ignore[return-value]


def _written(argument: object) -> Iterator[object]:
    if isinstance(argument, KVLayer):
        # What a reader sees: a code may be a neighbour's where a value lies between the two.
        yield from argument.read(torch.arange(len(argument.keys), device=argument.keys.device), torch.float32)
    else:
        yield argument


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """What a kernel may be off by: rounding of inputs and products; a GPU's float32 products are tf32."""
    if dtype is torch.float32:
        return 2e-3 if device.type == "cuda" else 1e-5
    return 1.5e-2 if dtype is torch.bfloat16 else 3e-3


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| over what is expected to be finite; integers count mismatches."""
    if found.shape != expected.shape:
        return float("inf")
    if not expected.is_floating_point():
        return float((found != expected).double().mean())
    known = expected.isfinite()
    difference = (found.double() - expected.double())[known].norm()
    # Integers of the same norm: an all-zero expectation must be met exactly.
    size = expected.double()[known].norm()
    return float(difference / size) if size > 0 else float(difference)
