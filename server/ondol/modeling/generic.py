"""Other causal language models, run by transformers' own modelling code over the paged cache.

transformers lets a model's attention be replaced by name; the replacement here reads and writes the
paged cache. That is right only for models whose attention is causal (full or sliding), whose rotary
embedding does not depend on the sequence length, and which pass nothing to attention that we do not
implement. A dry run on the meta device checks all of this before any weight is read; what does not
pass is refused by name, because it would give wrong text silently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

from ondol.errors import ModelRefused
from ondol.kernels.backend import Kernels
from ondol.kernels.paged_attention import AttentionMetadata, PagedKVCache
from ondol.modeling.architecture import rope_type
from ondol.modeling.device_memory import allocate
from ondol.modeling.kernel_module import KernelModule
from ondol.modeling.layer_factory import LayerFactory
from ondol.modeling.layers import ProjectionShape
from ondol.modeling.slots import HasSlots, ParameterSlot, WeightSlot

ATTENTION_NAME = "ondol"
LAYER_TYPES = ("full_attention", "sliding_attention")
# What models pass to attention and how we treat it; anything else that is not None is refused.
# position_ids: the rotary embedding has applied them already; masks come from the metadata.
IMPLEMENTED_KEYWORDS = ("scaling", "sliding_window", "position_ids", "call")
HARMLESS_VALUES: dict[str, tuple[object, ...]] = {
    "dropout": (0, 0.0),
    "is_causal": (True,),
    "use_cache": (False,),
    "output_attentions": (False,),
}

# What transformers' model code raises when it cannot be built or run the way we do it.
CODE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class PagedCall:
    """One forward pass's cache, layout, the sliding window of each layer, and the kernels."""

    cache: PagedKVCache
    metadata: AttentionMetadata
    windows: tuple[int | None, ...]
    kernels: Kernels


@dataclass(slots=True)
class DryRun:
    """What the attention calls of a forward pass on the meta device looked like."""

    config: Any
    windows: list[int | None] = field(default_factory=list)
    kv_shapes: set[tuple[int, int]] = field(default_factory=set)

    def record(self, module: nn.Module, key: Tensor, value: Tensor, keywords: dict[str, Any]) -> None:
        """Check one layer's call; raises ModelRefused."""
        name = self.config.model_type
        for keyword, given in keywords.items():
            harmless = given is None or given in HARMLESS_VALUES.get(keyword, ())
            if keyword not in IMPLEMENTED_KEYWORDS and not harmless:
                raise ModelRefused(f"{name}: its attention uses '{keyword}', which Ondol does not implement")
        if getattr(module, "is_causal", True) is not True:
            raise ModelRefused(f"{name}: its attention is not causal")
        if getattr(module, "layer_idx", None) != len(self.windows):
            raise ModelRefused(f"{name}: its attention layers do not run in order")
        if key.shape != value.shape:
            raise ModelRefused(f"{name}: its keys and values differ in shape")
        self.kv_shapes.add((key.shape[1], key.shape[3]))
        self.windows.append(self._window(keywords.get("sliding_window")))

    def _window(self, passed: int | None) -> int | None:
        """The layer's sliding window, from layer_types where the config has them."""
        types = getattr(self.config, "layer_types", None)
        configured = getattr(self.config, "sliding_window", None) or None
        if types is None:
            expected = configured
        else:
            expected = configured if types[len(self.windows)] == "sliding_attention" else None
        if passed is not None and passed != expected:
            raise ModelRefused(f"{self.config.model_type}: its sliding window is ambiguous")
        if types is None and configured is not None and passed is None:
            raise ModelRefused(f"{self.config.model_type}: it does not say which layers slide")
        return expected


class GenericModel(KernelModule):
    """A transformers causal LM behind the interface of `Decoder`.

    Attributes:
        network: the transformers model, on the meta device until its weights are loaded.
        windows: sliding window of each layer, from the dry run.
        num_kv_heads, head_dim: of the keys that attention sees.
        can_be_captured: not known of transformers' code.
    """

    can_be_captured = False

    def __init__(self, network: Any, run: DryRun) -> None:
        super().__init__()
        self.network = network
        self.windows = tuple(run.windows)
        ((self.num_kv_heads, self.head_dim),) = run.kv_shapes

    def decoder_layers(self) -> Sequence[nn.Module]:
        """The layers, in the order in which they run; none where transformers' code does not tell."""
        lists = [
            module
            for module in self.network.modules()
            if isinstance(module, nn.ModuleList) and len(module) == len(self.windows)
        ]
        if len(lists) != 1:
            return ()
        layer_ids = {id(parameter) for parameter in lists[0].parameters()}
        uses = self.network.named_parameters(remove_duplicate=False)
        is_shared = sum(id(parameter) in layer_ids for _, parameter in uses) > len(layer_ids)
        return () if is_shared else list(lists[0])

    def allocate(self, device: torch.device) -> None:
        """Move what is on the meta device to uninitialized memory; tied weights stay one."""
        allocate(self, device)
        self.network.tie_weights()

    def slots(self) -> Iterator[WeightSlot]:
        """What our projections ask for, and every other parameter under its own name, tied ones once."""
        own: set[int] = set()
        for module in self.network.modules():
            parameter_ids = [id(parameter) for parameter in module.parameters()]
            if isinstance(module, HasSlots):
                own.update(parameter_ids)
                yield from module.slots()
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in own:
                module_name, _, attribute = name.rpartition(".")
                module = self.network.get_submodule(module_name)
                yield ParameterSlot(name, module, attribute, 0, parameter.shape[0])

    def prepare(self, max_model_len: int) -> None:
        """Rebuild the rotary frequencies, which are no weights and were lost on the meta device."""
        del max_model_len
        device = next(self.network.parameters()).device
        for module in _rotary_modules(self.network):
            fresh = type(module)(module.config)
            for name, buffer in fresh.named_buffers():
                module.register_buffer(name, buffer.to(device), persistent=False)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        cache: PagedKVCache,
        metadata: AttentionMetadata,
        logit_rows: Tensor,
    ) -> Tensor:
        """See `Decoder.forward`."""
        result = self.network(
            input_ids=token_ids[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=logit_rows,
            call=PagedCall(cache, metadata, self.windows, self.kernels),
        )
        return result.logits[0].to(torch.float32)  # type: ignore[no-any-return]


def build_generic(config: Any, make: LayerFactory) -> GenericModel:
    """Build a model that `describe` does not know, on the meta device, its projections made by `make`.

    Raises:
        ModelRefused: names what Ondol does not implement.
    """
    _check_config(config)
    AttentionInterface.register(ATTENTION_NAME, _attention)
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(
                config, attn_implementation=ATTENTION_NAME, trust_remote_code=False
            )
    except CODE_ERRORS as error:  # no causal LM class, or no replaceable attention
        raise _unfit(config, error) from error
    network.to(make.dtype).eval().requires_grad_(False)
    _check_buffers(network, config)
    run = DryRun(config)
    try:
        with torch.no_grad(), torch.device("meta"):
            ids = torch.zeros((1, 2), dtype=torch.int64)
            network(input_ids=ids, position_ids=ids, use_cache=False, call=run)
    except CODE_ERRORS as error:  # does not hand `call` through, or has sizes that do not fit together
        raise _unfit(config, error) from error
    if len(run.windows) != config.num_hidden_layers or len(run.kv_shapes) != 1:
        raise ModelRefused(f"{config.model_type}: not every layer is full or sliding attention of one shape")
    _replace_projections(network, make)
    return GenericModel(network, run)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [1, heads, T, head_dim] -> [1, T, heads, head_dim]."""
    call = keywords["call"]
    assert attention_mask is None, "a custom attention gets no mask"
    if isinstance(call, DryRun):
        call.record(module, key, value, keywords)
        return query.transpose(1, 2), None
    index: int = module.layer_idx  # type: ignore[assignment]
    layer = call.cache.layers[index]
    layer.write(key[0].transpose(0, 1), value[0].transpose(0, 1), call.metadata.slots)
    rows = query[0].transpose(0, 1).contiguous()
    scale = keywords.get("scaling") or query.shape[-1] ** -0.5
    attended = call.kernels.paged_attention(rows, layer, call.metadata, scale, call.windows[index])
    return attended[None], None


def _unfit(config: Any, error: Exception) -> ModelRefused:
    reason = " ".join(str(error).split())[:200]
    return ModelRefused(f"{config.model_type} cannot be served: {type(error).__name__}: {reason}")


def _replace_projections(network: Any, make: LayerFactory) -> None:
    """Put the factory's projections where nn.Linear was; a tied head stays, for it is the embedding."""
    head = network.get_output_embeddings()
    is_tied = network.config.tie_word_embeddings
    linears = [
        (name, module)
        for name, module in network.named_modules()
        if type(module) is nn.Linear and not (module is head and is_tied)
    ]
    for name, linear in linears:
        parent_name, _, attribute = name.rpartition(".")
        shape = ProjectionShape((name,), linear.in_features, (linear.out_features,), linear.bias is not None)
        make_one = make.head if linear is head else make.projection
        with torch.device("meta"):
            setattr(network.get_submodule(parent_name), attribute, make_one(shape))


def _check_config(config: Any) -> None:
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelRefused(f"{name} is an encoder-decoder model, not a causal language model")
    types = set(getattr(config, "layer_types", None) or LAYER_TYPES)
    if not types <= set(LAYER_TYPES):
        other = ", ".join(sorted(types - set(LAYER_TYPES)))
        raise ModelRefused(f"{name} has layers of a kind that Ondol does not implement: {other}")
    if getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        raise ModelRefused(f"{name} is a mixture of experts of a kind that Ondol does not implement")
    if not isinstance(getattr(config, "rope_parameters", None), dict):
        raise ModelRefused(f"{name} has no rotary position embedding")
    rope_type(config)


def _rotary_modules(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if hasattr(module, "inv_freq")]


def _check_buffers(network: Any, config: Any) -> None:
    rotary = {id(buffer) for module in _rotary_modules(network) for buffer in module.buffers()}
    others = [name for name, buffer in network.named_buffers() if id(buffer) not in rotary]
    if others:
        raise ModelRefused(f"{config.model_type} computes a buffer that Ondol does not rebuild: {others[0]}")
