"""The decoder of the llama, mistral, qwen2 and qwen2_moe families, for flat ragged batches.

Rows of many requests run through together: [T, H] in, [T, H] out. Knows nothing about requests,
only each row's position and the batch's attention metadata. Invariant: in the same dtype the result
equals transformers' model of the family, up to the order of summation.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata, PagedKVCache
from ondol.modeling.architecture import Architecture, LayerKind
from ondol.modeling.device_memory import allocate
from ondol.modeling.kernel_module import KernelModule
from ondol.modeling.layer_factory import LayerFactory, Projection
from ondol.modeling.layers import Embedding, ExpertsShape, ProjectionShape, RMSNorm
from ondol.modeling.rope import RotaryTable
from ondol.modeling.slots import HasSlots, WeightSlot


class Attention(KernelModule):
    """Grouped-query attention with rotary positions over the paged cache."""

    def __init__(self, arch: Architecture, make: LayerFactory, name: str, window: int | None) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = arch.num_heads, arch.num_kv_heads, arch.head_dim
        self.window = window
        self.scale = arch.head_dim**-0.5
        query_width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.qkv = make.projection(
            ProjectionShape(
                (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"),
                arch.hidden_size,
                (query_width, kv_width, kv_width),
                arch.qkv_bias,
            )
        )
        self.output = make.projection(
            ProjectionShape((f"{name}.o_proj",), query_width, (arch.hidden_size,), arch.output_bias)
        )

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        kv_layer: KVLayer,
        metadata: AttentionMetadata,
    ) -> Tensor:
        """[T, H] -> [T, H]; stores the rows' keys and values on the way."""
        heads = self.qkv(hidden).view(hidden.shape[0], -1, self.head_dim)
        query = self.kernels.rotate_and_write_kv(heads, rotary, kv_layer, metadata.slots)
        attended = self.kernels.paged_attention(query, kv_layer, metadata, self.scale, self.window)
        return self.output(attended.flatten(1))


class FeedForward(KernelModule):
    """Dense SwiGLU block."""

    def __init__(
        self, make: LayerFactory, name: str, hidden_size: int, intermediate_size: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.gate_up = make.projection(
            ProjectionShape(
                (f"{name}.gate_proj", f"{name}.up_proj"),
                hidden_size,
                (intermediate_size, intermediate_size),
                bias,
            )
        )
        self.down = make.projection(
            ProjectionShape((f"{name}.down_proj",), intermediate_size, (hidden_size,), bias)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, H] -> [T, H]."""
        return self.down(self.kernels.silu_mul(self.gate_up(hidden)))


class SparseFeedForward(KernelModule):
    """Qwen1.5-MoE's block: routed experts plus a gated shared expert."""

    def __init__(self, arch: Architecture, make: LayerFactory, name: str) -> None:
        super().__init__()
        assert arch.experts is not None
        self.sizes = arch.experts
        hidden = arch.hidden_size
        self.router = make.router(ProjectionShape((f"{name}.gate",), hidden, (self.sizes.num_experts,)))
        self.experts = make.experts(
            ExpertsShape(f"{name}.experts", self.sizes.num_experts, hidden, self.sizes.intermediate_size)
        )
        self.shared = FeedForward(
            make, f"{name}.shared_expert", hidden, self.sizes.shared_intermediate_size, bias=False
        )
        self.shared_gate = make.router(ProjectionShape((f"{name}.shared_expert_gate",), hidden, (1,)))

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, H] -> [T, H]."""
        weights, chosen = self.kernels.route(
            self.router(hidden), self.sizes.num_experts_per_token, self.sizes.normalize_weights
        )
        routed = self.experts(hidden, weights, chosen)
        shared: Tensor = self.kernels.sigmoid(self.shared_gate(hidden)) * self.shared(hidden)
        return routed + shared


class DecoderLayer(KernelModule):
    """Attention and feed-forward, each behind a norm.

    What a block computed is added to the residual stream together with the norm of the next block, in one
    operator; so a layer takes the branch of the one before and leaves its own to the one after.
    """

    def __init__(self, arch: Architecture, make: LayerFactory, name: str, kind: LayerKind) -> None:
        super().__init__()
        hidden = arch.hidden_size
        self.eps = arch.rms_norm_eps
        self.input_norm = RMSNorm(f"{name}.input_layernorm", hidden, make.dtype)
        self.attention = Attention(arch, make, f"{name}.self_attn", kind.sliding_window)
        self.post_attention_norm = RMSNorm(f"{name}.post_attention_layernorm", hidden, make.dtype)
        self.feed_forward = (
            SparseFeedForward(arch, make, f"{name}.mlp")
            if kind.is_sparse
            else FeedForward(make, f"{name}.mlp", hidden, arch.intermediate_size, bias=arch.mlp_bias)
        )

    def forward(
        self,
        branch: Tensor | None,
        residual: Tensor,
        rotary: tuple[Tensor, Tensor],
        kv_layer: KVLayer,
        metadata: AttentionMetadata,
    ) -> tuple[Tensor, Tensor]:
        """Branch, None in the first layer, and residual, [T, H] each; the same of this layer."""
        if branch is None:
            normed = self.kernels.rms_norm(residual, self.input_norm.weight, self.eps)
        else:
            normed, residual = self.kernels.add_rms_norm(branch, residual, self.input_norm.weight, self.eps)
        attended = self.attention(normed, rotary, kv_layer, metadata)
        normed, residual = self.kernels.add_rms_norm(
            attended, residual, self.post_attention_norm.weight, self.eps
        )
        return self.feed_forward(normed), residual


class Decoder(KernelModule):
    """Embeddings, layers, final norm and head.

    Built on the meta device and filled by `weight_loader`; `prepare` makes it ready to run.
    """

    rotary: RotaryTable
    can_be_captured = True

    def __init__(self, arch: Architecture, make: LayerFactory) -> None:
        super().__init__()
        self.arch = arch
        self.num_kv_heads, self.head_dim = arch.num_kv_heads, arch.head_dim
        self.embedding = Embedding("model.embed_tokens", arch.vocab_size, arch.hidden_size, make.dtype)
        self.layers = nn.ModuleList(
            DecoderLayer(arch, make, f"model.layers.{index}", kind) for index, kind in enumerate(arch.layers)
        )
        self.norm = RMSNorm("model.norm", arch.hidden_size, make.dtype)
        head = ProjectionShape(("lm_head",), arch.hidden_size, (arch.vocab_size,))
        self.head: Projection | None = None if arch.tie_word_embeddings else make.head(head)

    def decoder_layers(self) -> Sequence[nn.Module]:
        """The layers, in the order in which they run."""
        return list(self.layers)

    def allocate(self, device: torch.device) -> None:
        """Move what is on the meta device to uninitialized memory."""
        allocate(self, device)

    def slots(self) -> Iterator[WeightSlot]:
        """Every checkpoint tensor that this model needs."""
        for module in self.modules():
            if module is not self and isinstance(module, HasSlots):
                yield from module.slots()

    def prepare(self, max_model_len: int) -> None:
        """Build what depends on the context length, once the weights are in."""
        weight = self.embedding.weight
        self.rotary.build(max_model_len, weight.dtype, weight.device)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        cache: PagedKVCache,
        metadata: AttentionMetadata,
        logit_rows: Tensor,
    ) -> Tensor:
        """One pass over a flat ragged batch.

        Args:
            token_ids, positions: [T] int64.
            cache: the paged cache; the rows' keys and values are written to `metadata.slots`.
            metadata: the batch's layout.
            logit_rows: [B] int64, the rows whose logits are wanted.

        Returns:
            [B, vocab_size] float32.
        """
        branch, residual = None, self.embedding(token_ids)
        rotary = self.rotary.at(positions)
        for layer, kv_layer in zip(self.layers, cache.layers, strict=True):
            branch, residual = layer(branch, residual, rotary, kv_layer, metadata)
        assert branch is not None, "a model has layers"
        hidden, _ = self.kernels.add_rms_norm(
            branch[logit_rows], residual[logit_rows], self.norm.weight, self.arch.rms_norm_eps
        )
        return self._head(hidden).to(torch.float32)

    def _head(self, hidden: Tensor) -> Tensor:
        if self.arch.tie_word_embeddings:
            return self.embedding.as_head(hidden)
        logits: Tensor = self.get_submodule("head")(hidden)
        return logits


def build_decoder(arch: Architecture, config: Any, make: LayerFactory) -> Decoder:
    """A decoder on the meta device; its rotary frequencies, which are no weights, are real."""
    with torch.device("meta"):
        decoder = Decoder(arch, make)
    decoder.rotary = RotaryTable(config, arch.head_dim)
    return decoder
