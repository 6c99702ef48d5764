"""Quantized matrices in the one internal layout, and what they compute: the torch reference.

Every published format and every quantization on load ends up here; a hardware kernel reads the same
buffers and must agree with these functions. Knows nothing about checkpoints.

A matrix holds `rows` of `K` weights, or a stack of such matrices (experts). A weight is

    value(code) * scale[row, k // group_size]              nf4, fp4, fp8_e4m3, symmetric int4 and int8
    (code - zero[row, k // group_size]) * scale[...]       asymmetric int4 and int8

Codes of 4 bits lie two to a byte, the even k in the high half (bitsandbytes' order).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ondol.kernels.operators import Linear, linear, silu_mul, sum_over_experts

Kind = Literal["int8", "int4", "nf4", "fp4", "fp8_e4m3"]

# Values of the 16 codes. NF4: quantiles of the normal distribution (QLoRA, arXiv:2305.14314).
# FP4: sign, two exponent bits and one of mantissa, scaled to [-1, 1] (bitsandbytes).
NF4_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4_MAGNITUDES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
FP4_VALUES = tuple(sign * value / 12.0 for sign in (1.0, -1.0) for value in FP4_MAGNITUDES)

# bitsandbytes quantizes the scales again in blocks of 256 (double quantization).
NESTED_BLOCK_SIZE = 256
INT4_ZERO = 8
# Weights that a CPU dequantizes at once: scratch for more comes from the system page by page, each time anew.
PIECE_WEIGHTS = 1 << 18


@dataclass(frozen=True, slots=True)
class QuantizedFormat:
    """How the weights of a matrix are stored.

    Attributes:
        kind: what a code means.
        group_size: weights along K that share a scale; None is one scale per row.
        has_zeros: asymmetric integers.
        has_nested_scales: scales are themselves quantized (double quantization).
        scale_dtype: dtype of scales that are not nested.
        storage_dtype: dtype of the tensor that 4-bit codes are packed in; the bytes are the same.
    """

    kind: Kind
    group_size: int | None
    has_zeros: bool = False
    has_nested_scales: bool = False
    scale_dtype: torch.dtype = torch.float32
    storage_dtype: torch.dtype = torch.uint8

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 8 if self.kind in ("int8", "fp8_e4m3") else 4

    @property
    def code_dtype(self) -> torch.dtype:
        """What codes are read as; two to a byte where they have 4 bits."""
        return {"int8": torch.int8, "fp8_e4m3": torch.float8_e4m3fn}.get(self.kind, torch.uint8)

    @property
    def container(self) -> torch.dtype:
        """Dtype of the tensor that holds the codes."""
        return self.code_dtype if self.bits == 8 else self.storage_dtype

    def code_bytes(self, num_in: int) -> int:
        """Bytes of the codes of a row of K weights."""
        return num_in if self.bits == 8 else -(-num_in // 2)

    def num_groups(self, num_in: int) -> int:
        """Groups of a row of K weights; the last one may be short."""
        return 1 if self.group_size is None else -(-num_in // self.group_size)


class NestedScales(nn.Module):
    """Scales in 8 bits, per source tensor in blocks of 256, plus an offset each (QLoRA, section 3).

    Source tensors keep blocks and offsets of their own: fusing them must not change a bit.

    Args:
        lead: () or (num_experts,).
        part_rows: rows of each source tensor in the stack of rows.
        num_groups: scales per row.
    """

    def __init__(self, lead: tuple[int, ...], part_rows: tuple[int, ...], num_groups: int) -> None:
        super().__init__()
        self.part_rows = part_rows
        self.num_groups = num_groups
        self.num_blocks = tuple(-(-rows * num_groups // NESTED_BLOCK_SIZE) for rows in part_rows)
        self.codes = _buffer((*lead, sum(part_rows), num_groups), torch.uint8)
        self.absmax = _buffer((*lead, sum(self.num_blocks)), torch.float32)
        self.offsets = _buffer((*lead, len(part_rows)), torch.float32)
        self.values = _buffer((NESTED_BLOCK_SIZE,), torch.float32)

    def expand(self, expert: int | None) -> Tensor:
        """[rows, num_groups] float32, of one expert or of a plain matrix."""
        stored: tuple[Tensor, ...] = (self.codes, self.absmax, self.offsets)
        codes, absmax, offsets = stored if expert is None else (tensor[expert] for tensor in stored)
        parts = zip(
            torch.split(codes, list(self.part_rows)),
            torch.split(absmax, list(self.num_blocks)),
            offsets,
            strict=True,
        )
        return torch.cat([self._expand_part(*part) for part in parts])

    def _expand_part(self, codes: Tensor, absmax: Tensor, offset: Tensor) -> Tensor:
        values = self.values[codes.flatten().int()]
        factors = absmax.repeat_interleave(NESTED_BLOCK_SIZE)[: values.numel()]
        return (values * factors + offset).view(codes.shape)


class QuantizedMatrix(nn.Module):
    """Codes, scales and zeros of one matrix or of a stack of experts' matrices.

    Args:
        fmt: the format.
        part_rows: rows of each source tensor, stacked in this order.
        num_in: K.
        num_experts: length of the stack; None for a plain matrix.
        is_flat: groups run on across the ends of rows, as bitsandbytes' blocks do where K is no multiple
            of them; such a matrix has one part and is stored as a single row of rows * K weights.

    Attributes:
        packed: the codes, in the format's container.
        scales: [.., rows, num_groups], or None with nested scales.
        zeros: [.., rows, num_groups] int16, or None.
        column_order: [.., K] int64: column k of the codes belongs to input `column_order[k]` (desc_act),
            or None.
    """

    def __init__(
        self,
        fmt: QuantizedFormat,
        part_rows: tuple[int, ...],
        num_in: int,
        num_experts: int | None = None,
        *,
        is_flat: bool = False,
    ) -> None:
        super().__init__()
        lead = () if num_experts is None else (num_experts,)
        self.shape = (sum(part_rows), num_in)
        if is_flat:
            assert len(part_rows) == 1, "flat blocks cannot be fused"
            part_rows, num_in = (1,), part_rows[0] * num_in
        num_rows, num_groups = sum(part_rows), fmt.num_groups(num_in)
        num_columns, rest = divmod(fmt.code_bytes(num_in), fmt.container.itemsize)
        assert rest == 0, "rows fill whole elements of the container"
        self.fmt = fmt
        self.num_in = num_in
        self.part_rows = part_rows
        self.packed = _buffer((*lead, num_rows, num_columns), fmt.container)
        self.scales: Tensor | None = None
        self.nested: NestedScales | None = None
        if fmt.has_nested_scales:
            self.nested = NestedScales(lead, part_rows, num_groups)
        else:
            self.scales = _buffer((*lead, num_rows, num_groups), fmt.scale_dtype)
        self.zeros = _buffer((*lead, num_rows, num_groups), torch.int16) if fmt.has_zeros else None
        self.column_order: nn.Parameter | None = None
        self._codebooks: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def reorder_columns(self) -> None:
        """Make room for `column_order`, for checkpoints that sort their columns (desc_act)."""
        lead = self.packed.shape[:-2]
        self.column_order = _buffer((*lead, self.num_in), torch.int64)

    @property
    def codes(self) -> Tensor:
        """[.., rows, K] int8 or float8, or [.., rows, ceil(K / 2)] uint8: a view of `packed`."""
        return self.packed.view(self.fmt.code_dtype)

    def codebook(self, dtype: torch.dtype) -> Tensor:
        """Values of nf4's or fp4's codes; made once, so that captured graphs may read them.

        Returns:
            In float32 the 16 values. In 16-bit dtypes [256] int32, for every byte the values of its two
            codes, the even k's in the low half: one lookup for two weights.
        """
        key = (dtype, self.packed.device)
        if key not in self._codebooks:
            values = torch.tensor(NF4_VALUES if self.fmt.kind == "nf4" else FP4_VALUES, dtype=dtype)
            if dtype != torch.float32:
                codes = torch.arange(256)
                values = (
                    torch.stack((values[codes >> 4], values[codes & 0xF]), dim=1).view(torch.int32).view(-1)
                )
            self._codebooks[key] = values.to(self.packed.device)
        return self._codebooks[key]

    @property
    def num_weights(self) -> int:
        """Weights that the codes stand for."""
        return self.codes.numel() // self.codes.shape[-1] * self.num_in

    @property
    def num_piece_rows(self) -> int:
        """Rows of codes that a CPU dequantizes at once (a GPU: all); a flat matrix has one."""
        return max(1, min(self.packed.shape[-2], PIECE_WEIGHTS // self.num_in))

    @property
    def num_bytes(self) -> int:
        """Memory of codes, scales, zeros and column order."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def dequantize(self, dtype: torch.dtype, expert: int | None = None) -> Tensor:
        """[rows, K] in `dtype`, in the order of the codes' columns; computed in float32."""
        codes = self.codes if expert is None else self.codes[expert]
        zeros = self.zeros if self.zeros is None or expert is None else self.zeros[expert]
        groups = self._group_scales(expert)
        num_at_once = self.num_piece_rows if codes.device.type == "cpu" else len(codes)
        weights = torch.empty((len(codes), self.num_in), dtype=dtype, device=codes.device)
        for start in range(0, len(codes), num_at_once):
            rows = slice(start, start + num_at_once)
            values = self._values(codes[rows])
            if zeros is not None:
                values = values - self._spread(zeros[rows].float())
            torch.mul(values, self._spread(groups[rows]), out=weights[rows])
        return weights.view(self.shape)

    def inputs(self, hidden: Tensor, expert: int | None = None) -> Tensor:
        """Hidden states [T, K] with their columns in the order of the codes'."""
        if self.column_order is None:
            return hidden
        return hidden[..., self.column_order if expert is None else self.column_order[expert]]

    def _values(self, codes: Tensor) -> Tensor:
        if self.fmt.bits == 8:
            return codes.float()
        unpacked = torch.stack((codes >> 4, codes & 0xF), dim=-1).flatten(-2)[:, : self.num_in]
        if self.fmt.kind == "int4":
            return unpacked.float() if self.fmt.has_zeros else unpacked.float() - INT4_ZERO
        # Square brackets would make indices of 64 bits.
        return self.codebook(torch.float32).index_select(0, unpacked.flatten().int()).view(unpacked.shape)

    def _group_scales(self, expert: int | None) -> Tensor:
        if self.nested is not None:
            return self.nested.expand(expert)
        assert self.scales is not None
        return (self.scales if expert is None else self.scales[expert]).float()

    def _spread(self, per_group: Tensor) -> Tensor:
        """[rows, num_groups] -> [rows, K], or something that broadcasts to it."""
        if self.fmt.group_size is None:
            return per_group
        return per_group.repeat_interleave(self.fmt.group_size, dim=1)[:, : self.num_in]


def quantized_linear(
    hidden: Tensor, matrix: QuantizedMatrix, bias: Tensor | None, *, linear: Linear = linear
) -> Tensor:
    """hidden [.., K] times the matrix, plus bias: [.., rows], in the dtype of `hidden`.

    `linear` multiplies by the matrix once it is dequantized.
    """
    return linear(matrix.inputs(hidden), matrix.dequantize(hidden.dtype), bias)


def quantized_mixture_of_experts(
    hidden: Tensor,
    weights: Tensor,
    experts: Tensor,
    gate_up: Sequence[QuantizedMatrix],
    down: QuantizedMatrix,
    *,
    linear: Linear = linear,
    activate: Callable[[Tensor], Tensor] = silu_mul,
) -> Tensor:
    """As `operators.mixture_of_experts`, over stacks of quantized matrices.

    `gate_up` is one fused stack, or gate and up apart where they could not be fused.
    """

    def through(rows: Tensor, stack: QuantizedMatrix, expert: int) -> Tensor:
        return linear(stack.inputs(rows, expert), stack.dequantize(rows.dtype, expert), None)

    def compute(rows: Tensor, expert: int) -> Tensor:
        gated = torch.cat([through(rows, stack, expert) for stack in gate_up], dim=-1)
        return through(activate(gated), down, expert)

    return sum_over_experts(hidden, weights, experts, down.codes.shape[0], compute)


def _buffer(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    # A parameter that is never trained: it moves, counts and prints with the module's weights.
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
