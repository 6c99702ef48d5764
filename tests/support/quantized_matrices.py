"""Quantized matrices of random codes, in every format of the internal layout."""

import torch

from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix


def random_matrix(
    kind: str,
    part_rows: tuple[int, ...],
    num_in: int,
    group_size: int | None,
    *,
    has_zeros: bool = False,
    is_nested: bool = False,
    is_ordered: bool = False,
    is_flat: bool = False,
    num_experts: int | None = None,
    scale_dtype: torch.dtype = torch.float32,
) -> QuantizedMatrix:
    """A matrix, or a stack of them, whose weights are of the order of one; torch's seed decides."""
    fmt = QuantizedFormat(kind, group_size, has_zeros, is_nested, scale_dtype)
    matrix = QuantizedMatrix(fmt, part_rows, num_in, num_experts, is_flat=is_flat)
    matrix.packed.copy_(_random_codes(kind, matrix.packed.shape))
    unit = {"int8": 1 / 64, "int4": 1 / 4}.get(kind, 1.0)
    if matrix.zeros is not None:
        low, high = (-20, 20) if kind == "int8" else (0, 16)
        matrix.zeros.copy_(torch.randint(low, high, matrix.zeros.shape))
    if matrix.scales is not None:
        matrix.scales.copy_((0.5 + torch.rand(matrix.scales.shape)) * unit)
    if matrix.nested is not None:
        nested = matrix.nested
        nested.codes.copy_(torch.randint(0, 256, nested.codes.shape))
        nested.values.copy_(torch.linspace(-1, 1, 256))
        nested.absmax.copy_(torch.rand(nested.absmax.shape) * 0.4)
        nested.offsets.copy_(torch.rand(nested.offsets.shape) + 0.5)
    if is_ordered:
        matrix.reorder_columns()
        orders = [torch.randperm(matrix.num_in) for _ in range(num_experts or 1)]
        matrix.column_order.copy_(torch.stack(orders).view(matrix.column_order.shape))
    return matrix


def _random_codes(kind: str, shape: torch.Size) -> torch.Tensor:
    if kind == "int8":
        return torch.randint(-127, 128, shape, dtype=torch.int8)
    if kind == "fp8_e4m3":
        return torch.randn(shape).to(torch.float8_e4m3fn)
    return torch.randint(0, 256, shape, dtype=torch.uint8)
