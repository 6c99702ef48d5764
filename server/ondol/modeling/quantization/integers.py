"""Integer weights as GPTQ, AWQ and compressed-tensors pack them, and how they enter the internal layout.

All three hold unsigned codes in 32-bit words, a scale and perhaps a zero point per group. Knows nothing
about names; what is wrong with a tensor is raised as BadTensor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import BadTensor, check_shape

WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class IntegerWeights:
    """One source tensor, unpacked.

    Attributes:
        bits: 4 or 8.
        codes: [rows, K] uint8.
        scales: [rows, num_groups] floating point.
        zeros: [rows, num_groups] int16 in the range of the codes, or None where they are symmetric.
        column_order: [K] int64, or None: groups hold neighbouring columns.
    """

    bits: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    column_order: Tensor | None

    def store(self, part: MatrixPart) -> None:
        """Copy into a part whose format agrees."""
        codes = self.codes
        if part.matrix.column_order is not None:
            order = self.column_order
            if order is None:  # another expert of the stack is out of order
                order = torch.arange(codes.shape[1])
            part.column_order().copy_(order)
            codes = codes[:, order]
        # 8-bit codes are kept signed, with zeros that follow them.
        part.codes().copy_(pack_nibbles(codes) if self.bits == 4 else (codes ^ 0x80).view(torch.int8))
        part.scales().copy_(self.scales)
        if self.zeros is not None:
            part.zeros().copy_(self.zeros if self.bits == 4 else self.zeros - midpoint(8))


def midpoint(bits: int) -> int:
    """The zero point of symmetric codes."""
    return int(2 ** (bits - 1))


def words(num_codes: int, bits: int) -> int:
    """32-bit words that hold so many codes."""
    return -(-num_codes * bits // WORD_BITS)


def unpack(packed: Tensor, bits: int, slots: tuple[int, ...] | None = None) -> Tensor:
    """[rows, W] int32 -> [rows, W * 32 / bits] uint8.

    Args:
        packed: words.
        bits: of a code; the lowest bits come first.
        slots: which code of a word comes first, second and so on; None is in order.
    """
    # Little-endian: the lowest byte comes first. `contiguous` would keep the strides of a single column.
    codes = packed.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    if bits == 4:
        codes = torch.stack((codes & 0xF, codes >> 4), dim=-1).flatten(-2)
    if slots is not None:
        per_word = codes.view(*packed.shape, WORD_BITS // bits)
        codes = per_word[..., slots].flatten(-2)
    return codes


def pack_nibbles(codes: Tensor) -> Tensor:
    """[rows, K] uint8 below 16 -> [rows, ceil(K / 2)], the even column in the high half."""
    if codes.shape[1] % 2:
        codes = F.pad(codes, (0, 1))
    return (codes[:, 0::2] << 4) | codes[:, 1::2]


def order_of_groups(name: str, groups: Tensor, num_in: int, group_size: int | None) -> Tensor | None:
    """The columns sorted by group (stable), or None where they lie so already; raises BadTensor.

    Args:
        name: the tensor's name, for the error.
        groups: [K] integers, each column's group (g_idx).
        num_in: K.
        group_size: columns per group; the last group may be short. None is one group.
    """
    check_integers(name, groups, (num_in,), (torch.int32, torch.int64))
    expected = torch.arange(num_in) // (group_size or num_in)
    groups = groups.long()
    if torch.equal(groups, expected):
        return None
    num_groups = int(expected[-1]) + 1
    low, high = (int(extreme) for extreme in groups.aminmax())
    if low < 0 or high >= num_groups:
        wrong = low if low < 0 else high
        raise BadTensor(name, f"names the group {wrong}, but there are {num_groups}")
    order = groups.argsort(stable=True)
    if not torch.equal(groups[order], expected):
        raise BadTensor(name, f"does not share the columns out in groups of {group_size or num_in}")
    return order


def check_integers(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = (torch.int32,)
) -> None:
    """Raise BadTensor unless the tensor has this shape and one of these dtypes."""
    check_shape(name, tensor, shape)
    if tensor.dtype not in dtypes:
        raise BadTensor(name, f"holds {tensor.dtype}, not {dtypes[0]}")


def check_symmetric(name: str, zeros: Tensor, bits: int) -> None:
    """Raise BadTensor unless every zero point is the middle of the codes."""
    if bool((zeros != midpoint(bits)).any()):
        raise BadTensor(
            name, f"holds zero points other than {midpoint(bits)}, but config.json calls the codes symmetric"
        )
