"""The module tree of a model that is loaded: our classes, and the tensors as they lie in memory.

Beside each quantized module stands what bitsandbytes would hold for it. Knows nothing about how a model is
loaded. The invariant: every parameter is listed once.
"""

from collections.abc import Iterator
from math import prod

from torch import nn

from ondol.inspection.tree import StoredTensor, TreeNode, fold, stored
from ondol.kernels.quantized import QuantizedMatrix
from ondol.modeling.layers import Embedding, ExpertStack, Linear, RMSNorm
from ondol.modeling.loading import LoadedWeights
from ondol.modeling.quantization.layers import QuantizedExperts, QuantizedLinear

CODES_PER_BYTE = 2


def live_tree(loaded: LoadedWeights) -> TreeNode:
    """The tree of a loaded model; its root is the model's own class."""
    model = loaded.model
    assert isinstance(model, nn.Module), "models are modules"
    return _node("", model)


def _node(name: str, module: nn.Module) -> TreeNode:
    kind = type(module).__name__
    match module:
        case Linear():
            num_in, num_out = module.shape.num_in, sum(module.shape.widths)
            return TreeNode(name, kind, num_in, num_out, _own(module), remarks=_parts(module.shape.names))
        case QuantizedLinear():
            num_in, num_out = module.shape.num_in, sum(module.shape.widths)
            remarks = (*_parts(module.shape.names), *_bitsandbytes(module.matrix))
            return TreeNode(name, kind, num_in, num_out, _all(module), is_packed=True, remarks=remarks)
        case QuantizedMatrix():
            rows, columns = module.shape
            return TreeNode(
                name, kind, columns, rows, _all(module), is_packed=True, remarks=_bitsandbytes(module)
            )
        case Embedding():
            rows, columns = module.weight.shape
            return TreeNode(name, kind, rows, columns, _own(module), remarks=_parts((module.name,)))
        case RMSNorm():
            return TreeNode(name, kind, tensors=_own(module), remarks=_parts((module.name,)))
        case ExpertStack() | QuantizedExperts():
            remarks = (f"{module.shape.num_experts} experts",)
            return TreeNode(name, kind, tensors=_own(module), remarks=remarks, children=_children(module))
        case _:
            return TreeNode(name, kind, tensors=_own(module), children=_children(module))


def _children(module: nn.Module) -> tuple[TreeNode, ...]:
    return fold(_node(name, child) for name, child in module.named_children())


def _own(module: nn.Module) -> tuple[StoredTensor, ...]:
    return tuple(_tensors(module, recurse=False))


def _all(module: nn.Module) -> tuple[StoredTensor, ...]:
    return tuple(_tensors(module, recurse=True))


def _tensors(module: nn.Module, *, recurse: bool) -> Iterator[StoredTensor]:
    for name, tensor in module.named_parameters(recurse=recurse):
        short_name = name.removeprefix("matrix.")
        yield stored(short_name, str(tensor.dtype).removeprefix("torch."), tensor.shape, tensor.itemsize)


def _parts(names: tuple[str, ...]) -> tuple[str, ...]:
    """The checkpoint's names of what is fused, without their common path."""
    return (" + ".join(name.rpartition(".")[2] for name in names),)


def _bitsandbytes(matrix: QuantizedMatrix) -> tuple[str, ...]:
    """What bitsandbytes would hold for each source tensor; nothing for formats that it does not have."""
    num_in = matrix.shape[1]
    rows = matrix.part_rows if len(matrix.part_rows) > 1 else matrix.shape[:1]
    match matrix.fmt.kind:
        case "nf4" | "fp4":
            shapes = [[-(-num_out * num_in // CODES_PER_BYTE), 1] for num_out in rows]
            kind = f"Params4bit {str(matrix.fmt.container).removeprefix('torch.')}"
            scale = matrix.fmt.container.itemsize
            shapes = [[length // scale, 1] for length, _ in shapes]
        case "int8":
            kind, shapes = "Int8Params int8", [[num_out, num_in] for num_out in rows]
        case _:
            return ()
    experts = f" for each of {prod(matrix.packed.shape[:-2])} experts" if matrix.packed.dim() > 2 else ""
    return (f"bitsandbytes: {kind} {', '.join(map(str, shapes))}{experts}",)
