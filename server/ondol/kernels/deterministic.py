"""The torch reference, computed so that a row's result does not depend on the rows beside it.

The same operators as in `operators` and `sampling`; slower where a library would choose faster sums for
more rows. What torch does row by row on a CPU (norms, softmax, top k, gathering) is taken as it is; what it
does not, products of matrices and functions that vectors compute otherwise than scalars, is done here. Knows
nothing about models. Invariant: every bit of a row's result is a function of that row, of the weights and of
the machine.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.kernels import operators, sampling
from ondol.kernels.row_tiles import RowTiles
from ondol.kernels.sampling import SamplingRows

# Torch may compute what fills no vector one by one, by another exponential. Every vector's width divides it.
VECTOR_MULTIPLE = 128
# Below the number of elements from which torch cuts a tensor up for its threads, anywhere in a row.
PIECE_SIZE = 16 * 1024


class TiledLinear:
    """Plain products whose rows go through tiles.

    Args:
        tiles: multiplies rows.
    """

    def __init__(self, tiles: RowTiles) -> None:
        self._tiles = tiles

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `operators.linear`; the bias is added to the rounded product."""
        product = self._tiles.multiply(hidden.reshape(-1, hidden.shape[-1]), weight.t())
        product = product.view(*hidden.shape[:-1], len(weight))
        return product if bias is None else product + bias


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
