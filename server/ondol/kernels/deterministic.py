"""The torch reference, computed so that a row's result does not depend on the rows beside it.

The same operators as in `operators` and `quantized`; slower where a library would choose faster sums for
more rows. What torch does row by row on a CPU (norms, softmax, top k, gathering) is taken as it is; what it
does not, products of matrices and functions that vectors compute otherwise than scalars, is done here. Knows
nothing about models. Invariant: every bit of a row's result is a function of that row, of the weights and of
the machine.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.kernels import operators, sampling
from ondol.kernels.quantized import QuantizedMatrix
from ondol.kernels.row_tiles import RowTiles
from ondol.kernels.sampling import SamplingRows

# Torch may compute what fills no vector one by one, by another exponential. Every vector's width divides it.
VECTOR_MULTIPLE = 128
# Below the number of elements from which torch cuts a tensor up for its threads, anywhere in a row.
PIECE_SIZE = 16 * 1024


class DeterministicOperators:
    """Products that go through the same tiles of rows, and what is built on them."""

    def __init__(self) -> None:
        self.tiles = RowTiles()

    def linear(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `operators.linear`; the bias is added to the rounded product."""
        product = self.tiles.multiply(hidden, weight.t())
        return product if bias is None else product + bias

    def mixture_of_experts(
        self, hidden: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor
    ) -> Tensor:
        """As `operators.mixture_of_experts`: a row's experts are added in the order of their numbers."""

        def compute(rows: Tensor, expert: int) -> Tensor:
            gated = silu_mul(self.linear(rows, gate_up[expert], None))
            return self.linear(gated, down[expert], None)

        return operators.sum_over_experts(hidden, weights, experts, gate_up.shape[0], compute)

    def quantized_linear(self, hidden: Tensor, matrix: QuantizedMatrix, bias: Tensor | None) -> Tensor:
        """As `quantized.quantized_linear`."""
        inputs = matrix.inputs(hidden)
        rows = inputs.reshape(-1, inputs.shape[-1])
        product = self.linear(rows, matrix.dequantize(hidden.dtype), bias)
        return product.view(*hidden.shape[:-1], -1)

    def quantized_mixture_of_experts(
        self,
        hidden: Tensor,
        weights: Tensor,
        experts: Tensor,
        gate_up: Sequence[QuantizedMatrix],
        down: QuantizedMatrix,
    ) -> Tensor:
        """As `quantized.quantized_mixture_of_experts`."""

        def through(rows: Tensor, stack: QuantizedMatrix, expert: int) -> Tensor:
            return self.linear(stack.inputs(rows, expert), stack.dequantize(rows.dtype, expert), None)

        def compute(rows: Tensor, expert: int) -> Tensor:
            gated = torch.cat([through(rows, stack, expert) for stack in gate_up], dim=-1)
            return through(silu_mul(gated), down, expert)

        return operators.sum_over_experts(hidden, weights, experts, down.codes.shape[0], compute)


def silu_mul(gate_up: Tensor) -> Tensor:
    """As `operators.silu_mul`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return by_vectors(F.silu, gate) * up


def sigmoid(values: Tensor) -> Tensor:
    """As `torch.sigmoid`."""
    return by_vectors(torch.sigmoid, values)


def logsumexp(logits: Tensor) -> Tensor:
    """As `operators.logsumexp`, row by row: on every device a sum of one row is cut up in one way."""
    return torch.cat([operators.logsumexp(row.clone()) for row in torch.split(logits, 1)])


def sample_tokens(logits: Tensor, rows: SamplingRows) -> tuple[Tensor, Tensor]:
    """As `sampling.sample_tokens`, row by row: noise and nuclei are functions that vectors compute."""
    chosen = []
    for index in range(len(logits)):
        row = slice(index, index + 1)
        parameters = (rows.temperatures, rows.top_ks, rows.top_ps, rows.min_ps)
        keys = (rows.seeds, rows.choices, rows.positions)
        alone = SamplingRows(*(tensor[row] for tensor in (*parameters, *keys)))
        chosen.append(sampling.sample_tokens(logits[row], alone))
    token_ids, is_finite = zip(*chosen, strict=True)
    return torch.cat(token_ids), torch.cat(is_finite)


def by_vectors(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """A function of each element, in the dtype of `values`, computed by vectors throughout."""
    flat = values.reshape(-1)
    padded = F.pad(flat, (0, -flat.numel() % VECTOR_MULTIPLE))
    computed = torch.cat([function(piece) for piece in torch.split(padded, PIECE_SIZE)])
    return computed[: flat.numel()].view(values.shape)
