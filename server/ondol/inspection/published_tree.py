"""The module tree of a model as transformers builds it, with what the checkpoint stores for each module.

transformers' model is built on the meta device: shapes, no weights. Where the headers of the weights are
here they tell dtypes and packed shapes, else config.json does. Knows nothing about terminals. The
invariant: a tensor of the checkpoint is listed once, at the module that it belongs to.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ondol.errors import ModelRefused
from ondol.inspection.facts import ModelFacts
from ondol.inspection.outline import ModelOutline
from ondol.inspection.tree import StoredTensor, TreeNode, fold, stored
from ondol.modeling.architecture import read_config
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.generic import CODE_ERRORS
from ondol.modeling.quantization.selection import read_quantization

# safetensors' names of dtypes -> torch's, and the bytes of an element.
DTYPES = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
# A tensor that only a quantized module has -> the class that its tools use for the module.
QUANTIZED_CLASSES = {
    "weight_packed": "CompressedLinear",
    "weight.absmax": "Linear4bit",
    "SCB": "Linear8bitLt",
    "weight_scale": "CompressedLinear",
    "weight_scale_inv": "FP8Linear",
}
PACKED_CLASSES = {"gptq": "QuantLinear", "awq": "WQLinear_GEMM"}


def published_tree(outline: ModelOutline, facts: ModelFacts) -> TreeNode:
    """The tree, its root named after the model's class.

    Raises:
        ModelRefused: transformers cannot build it.
    """
    config = read_config(outline.folder)
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except CODE_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelRefused(f"{outline.name}: transformers cannot build it: {reason}") from error
    quantization = read_quantization(outline.folder)
    method = quantization.method if quantization else ""
    checkpoint = outline.headers(method) if method else outline.checkpoint()
    if checkpoint is None:
        network.to(config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32)
        return _Walk(facts, _tied_head(network), None).node("", "", network)
    index = _HeaderIndex(checkpoint, method)
    index.sort_in(network)
    return _Walk(facts, _tied_head(network), index).node("", "", network)


@dataclass(slots=True)
class _HeaderIndex:
    """Which of a checkpoint's tensors belong to which module."""

    checkpoint: Checkpoint
    method: str
    by_module: defaultdict[str, list[StoredTensor]] = field(default_factory=lambda: defaultdict(list))

    def sort_in(self, network: nn.Module) -> None:
        """Give every tensor to the longest module path that its name begins with."""
        paths = {path for path, _ in network.named_modules()}
        paths |= {path for _, experts in _expert_stacks(network) for path in experts}
        for name in sorted(self.checkpoint.names):
            parts = name.split(".")
            length = next(
                (n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[:n]) in paths), len(parts) - 1
            )
            dtype, item_bytes = DTYPES.get(
                self.checkpoint.dtype_of(name), (self.checkpoint.dtype_of(name), 1)
            )
            tensor = stored(".".join(parts[length:]), dtype, self.checkpoint.shape_of(name), item_bytes)
            self.by_module[".".join(parts[:length])].append(tensor)

    def packed_class(self, path: str) -> str | None:
        """The class of a quantized module; None for a plain one."""
        names = {tensor.name for tensor in self.by_module.get(path, ())}
        if "qweight" in names:
            return PACKED_CLASSES.get(self.method, "QuantLinear")
        return next((cls for name, cls in QUANTIZED_CLASSES.items() if name in names), None)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Turns modules into nodes; without headers, tensors are the modules' own."""

    facts: ModelFacts
    tied_head: nn.Module | None
    index: _HeaderIndex | None

    def node(self, name: str, path: str, module: nn.Module) -> TreeNode:
        """A module and everything below it."""
        prefix = f"{path}." if path else ""
        children = [
            self.node(child_name, f"{prefix}{child_name}", child)
            for child_name, child in module.named_children()
        ]
        stack = _stack_shapes(module)
        if stack is not None:
            children = [*self._experts(path, stack, module), *children]
        packed_class = self.index.packed_class(path) if self.index else None
        num_in, num_out = _features(module)
        return TreeNode(
            name=name,
            class_name=packed_class or type(module).__name__,
            num_in=num_in,
            num_out=num_out,
            tensors=() if module is self.tied_head or stack is not None else self._tensors(path, module),
            is_packed=packed_class is not None,
            remarks=self._remarks(module),
            children=fold(children),
        )

    def _tensors(self, path: str, module: nn.Module) -> tuple[StoredTensor, ...]:
        if self.index is not None:
            return tuple(self.index.by_module.get(path, ()))
        return tuple(
            stored(name, str(tensor.dtype).removeprefix("torch."), tensor.shape, tensor.itemsize)
            for name, tensor in module.named_parameters(recurse=False)
        )

    def _experts(self, path: str, stack: dict[str, tuple[int, int]], module: nn.Module) -> Iterator[TreeNode]:
        """One node for each expert of a stack, as checkpoints hold them."""
        parameter = next(module.parameters(recurse=False))
        dtype = str(parameter.dtype).removeprefix("torch.")
        for expert in range(parameter.shape[0]):
            children = []
            for name, (num_out, num_in) in stack.items():
                part = f"{path}.{expert}.{name}"
                plain = (stored("weight", dtype, (num_out, num_in), parameter.itemsize),)
                tensors = tuple(self.index.by_module.get(part, ())) if self.index else plain
                packed_class = self.index.packed_class(part) if self.index else None
                is_packed = packed_class is not None
                children.append(TreeNode(name, packed_class or "Linear", num_in, num_out, tensors, is_packed))
            yield TreeNode(str(expert), "Expert", children=tuple(children))

    def _remarks(self, module: nn.Module) -> tuple[str, ...]:
        kind, facts = type(module).__name__, self.facts
        if module is self.tied_head:
            return ("tied to the embeddings: no weights of its own",)
        if kind.endswith("Attention"):
            window = getattr(module, "sliding_window", None)
            heads = f"{facts.num_heads} heads, {facts.num_kv_heads} kv heads of {facts.head_dim}"
            return (heads, *((f"sliding window {window}",) if window else ()))
        if kind.endswith("RotaryEmbedding"):
            return (str(facts.rope),)
        if "Norm" in kind:
            return (f"eps {facts.norm_eps:g}",)
        if kind.endswith("Router") and facts.experts is not None:
            return (f"{facts.experts.num_experts_per_token} experts for each token",)
        return ()


def _tied_head(network: Any) -> nn.Module | None:  # noqa: ANN401 - transformers' networks have no common static type
    head: nn.Module | None = network.get_output_embeddings()
    return head if network.config.tie_word_embeddings else None


def _features(module: nn.Module) -> tuple[int | None, int | None]:
    """Columns and rows of a matrix; rows and width of an embedding."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    weight = module._parameters.get("weight")
    if weight is not None and weight.dim() == 2:
        return weight.shape[1], weight.shape[0]
    return None, None


def _stack_shapes(module: nn.Module) -> dict[str, tuple[int, int]] | None:
    """[rows, columns] of one expert's projections, where a module holds all experts in one tensor."""
    own = dict(module.named_parameters(recurse=False))
    gate_up, down = own.get("gate_up_proj"), own.get("down_proj")
    if gate_up is None or down is None or gate_up.dim() != 3:
        return None
    _, double_width, hidden = gate_up.shape
    width = double_width // 2
    return {"gate_proj": (width, hidden), "up_proj": (width, hidden), "down_proj": (hidden, width)}


def _expert_stacks(network: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """Paths of the experts' projections in a checkpoint, for every stack of experts."""
    for path, module in network.named_modules():
        stack = _stack_shapes(module)
        if stack is not None:
            num_experts = next(module.parameters(recurse=False)).shape[0]
            yield path, [f"{path}.{expert}.{name}" for expert in range(num_experts) for name in stack]
