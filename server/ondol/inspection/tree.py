"""A model as a tree of modules with what each one stores, repeated modules folded.

Knows nothing about where the tree comes from. The invariant: bytes of a node are those of its own tensors
and of all its children, as often as they repeat.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

INDENT = "  "
BIAS = "bias"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it is stored; `dtype` as torch spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A module, or several equal ones.

    Attributes:
        name: its own name; "0-31" for folded ones.
        num_in, num_out: features of a matrix; rows and width of an embedding.
        tensors: its own, without its children's.
        is_packed: the tensors hold codes, not plain weights.
        remarks: what else there is to know, in the field's terms.
        count: how many equal modules this stands for.
    """

    name: str
    class_name: str
    num_in: int | None = None
    num_out: int | None = None
    tensors: tuple[StoredTensor, ...] = ()
    is_packed: bool = False
    remarks: tuple[str, ...] = ()
    children: tuple["TreeNode", ...] = ()
    count: int = 1

    @property
    def num_bytes(self) -> int:
        """Of one such module."""
        own = sum(tensor.num_bytes for tensor in self.tensors)
        return own + sum(child.count * child.num_bytes for child in self.children)

    @property
    def bits_per_weight(self) -> float | None:
        """Codes, scales and zeros over the weights of the matrix, biases apart; None without tensors."""
        if self.num_in is None or self.num_out is None or not self.tensors:
            return None
        stored = sum(tensor.num_bytes for tensor in self.tensors if not _is_bias(tensor.name))
        return 8 * stored / (self.num_in * self.num_out)

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dumps; `bytes` are of one module, of which there are `count`."""
        return {
            "name": self.name,
            "class": self.class_name,
            "count": self.count,
            "in": self.num_in,
            "out": self.num_out,
            "bits_per_weight": self.bits_per_weight,
            "bytes": self.num_bytes,
            "tensors": [
                {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.num_bytes}
                for t in self.tensors
            ],
            "remarks": list(self.remarks),
            "children": [child.to_json() for child in self.children],
        }


def fold(nodes: Iterable[TreeNode]) -> tuple[TreeNode, ...]:
    """Neighbours that differ in nothing but their number become one node; named modules stay apart."""
    folded: list[TreeNode] = []
    for _, group in groupby(
        nodes, key=lambda node: replace(node, name="" if node.name.isdigit() else node.name)
    ):
        members = list(group)
        first, last = members[0], members[-1]
        name = first.name if len(members) == 1 else f"{first.name}-{last.name}"
        folded.append(replace(first, name=name, count=len(members)))
    return tuple(folded)


def tree_lines(node: TreeNode, size: Callable[[int], str], depth: int = 0) -> Iterator[str]:
    """The tree as lines of text.

    Args:
        node: where to begin.
        size: turns bytes into text.
        depth: of the node.
    """
    indent = INDENT * depth
    name = f"({node.name}): " if node.name else ""
    count = f"{node.count} x " if node.count > 1 else ""
    described = [part for part in (_features(node), *_storage(node, size), *node.remarks) if part]
    text = f"{indent}{name}{count}{node.class_name}"
    yield f"{text}  {', '.join(described)}" if described else text
    if node.is_packed:
        yield from (f"{indent}{INDENT}{INDENT}{tensor}" for tensor in node.tensors)
    for child in node.children:
        yield from tree_lines(child, size, depth + 1)


def stored(name: str, dtype: str, shape: Iterable[int], item_bytes: int) -> StoredTensor:
    """A tensor whose elements take whole bytes."""
    dims = tuple(shape)
    return StoredTensor(name, dtype, dims, prod(dims) * item_bytes)


def _features(node: TreeNode) -> str:
    return "" if node.num_in is None else f"{node.num_in} -> {node.num_out}"


def _storage(node: TreeNode, size: Callable[[int], str]) -> Iterator[str]:
    if node.tensors and not node.is_packed:
        yield "/".join(dict.fromkeys(tensor.dtype for tensor in node.tensors))
        if any(_is_bias(tensor.name) for tensor in node.tensors):
            yield BIAS
    bits = node.bits_per_weight
    if bits is not None:
        yield f"{bits:g} bits" if bits == int(bits) else f"{bits:.3f} bits"
    if node.num_bytes:
        yield size(node.num_bytes)


def _is_bias(name: str) -> bool:
    return re.search(rf"(^|\.){BIAS}$", name) is not None
