"""The decoder of the llama, mistral, qwen2 and qwen2_moe families, for flat ragged batches.

Rows of many requests run through together: [T, H] in, [T, H] out. Knows nothing about requests,
only each row's position and the batch's attention metadata. Invariant: in the same dtype the result
equals transformers' model of the family, up to the order of summation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondol.kernels.operators import mixture_of_experts, rms_norm, rotate, route, silu_mul
from ondol.kernels.paged_attention import AttentionMetadata, PagedKVCache, paged_attention, write_kv
from ondol.modeling.architecture import Architecture, LayerKind
from ondol.modeling.layers import Embedding, ExpertStack, Linear, RMSNorm, WeightSlot
from ondol.modeling.rope import RotaryTable


class Attention(nn.Module):
    """Grouped-query attention with rotary positions over the paged cache."""

    def __init__(self, arch: Architecture, name: str, window: int | None) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = arch.num_heads, arch.num_kv_heads, arch.head_dim
        self.window = window
        self.scale = arch.head_dim**-0.5
        query_width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.qkv = Linear(
            [f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"],
            arch.hidden_size,
            [query_width, kv_width, kv_width],
            bias=arch.qkv_bias,
        )
        self.output = Linear([f"{name}.o_proj"], query_width, [arch.hidden_size], bias=arch.output_bias)

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        metadata: AttentionMetadata,
    ) -> Tensor:
        """[T, H] -> [T, H]; stores the rows' keys and values on the way."""
        heads = self.qkv(hidden).view(hidden.shape[0], -1, self.head_dim)
        query, key, value = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        write_kv(keys, rotate(key, *rotary), metadata.slots)
        write_kv(values, value, metadata.slots)
        attended = paged_attention(rotate(query, *rotary), keys, values, metadata, self.scale, self.window)
        return self.output(attended.flatten(1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Dense SwiGLU block."""

    def __init__(self, name: str, hidden_size: int, intermediate_size: int, *, bias: bool) -> None:
        super().__init__()
        widths = [intermediate_size, intermediate_size]
        self.gate_up = Linear([f"{name}.gate_proj", f"{name}.up_proj"], hidden_size, widths, bias=bias)
        self.down = Linear([f"{name}.down_proj"], intermediate_size, [hidden_size], bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, H] -> [T, H]."""
        return self.down(silu_mul(self.gate_up(hidden)))  # type: ignore[no-any-return]


class SparseFeedForward(nn.Module):
    """Qwen1.5-MoE's block: routed experts plus a gated shared expert."""

    def __init__(self, arch: Architecture, name: str) -> None:
        super().__init__()
        assert arch.experts is not None
        self.sizes = arch.experts
        hidden = arch.hidden_size
        self.router = Linear([f"{name}.gate"], hidden, [self.sizes.num_experts], bias=False)
        self.experts = ExpertStack(
            f"{name}.experts", self.sizes.num_experts, hidden, self.sizes.intermediate_size
        )
        self.shared = FeedForward(
            f"{name}.shared_expert", hidden, self.sizes.shared_intermediate_size, bias=False
        )
        self.shared_gate = Linear([f"{name}.shared_expert_gate"], hidden, [1], bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, H] -> [T, H]."""
        weights, chosen = route(
            self.router(hidden), self.sizes.num_experts_per_token, self.sizes.normalize_weights
        )
        routed = mixture_of_experts(hidden, weights, chosen, self.experts.gate_up, self.experts.down)
        shared: Tensor = F.sigmoid(self.shared_gate(hidden)) * self.shared(hidden)
        return routed + shared


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual."""

    def __init__(self, arch: Architecture, name: str, kind: LayerKind) -> None:
        super().__init__()
        self.eps = arch.rms_norm_eps
        self.input_norm = RMSNorm(f"{name}.input_layernorm", arch.hidden_size)
        self.attention = Attention(arch, f"{name}.self_attn", kind.sliding_window)
        self.post_attention_norm = RMSNorm(f"{name}.post_attention_layernorm", arch.hidden_size)
        self.feed_forward = (
            SparseFeedForward(arch, f"{name}.mlp")
            if kind.is_sparse
            else FeedForward(f"{name}.mlp", arch.hidden_size, arch.intermediate_size, bias=arch.mlp_bias)
        )

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        metadata: AttentionMetadata,
    ) -> Tensor:
        """[T, H] -> [T, H]."""
        normed = rms_norm(hidden, self.input_norm.weight, self.eps)
        hidden = hidden + self.attention(normed, rotary, keys, values, metadata)
        normed = rms_norm(hidden, self.post_attention_norm.weight, self.eps)
        return hidden + self.feed_forward(normed)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embeddings, layers, final norm and head.

    Built on the meta device and filled by `weight_loader`; `prepare` makes it ready to run.
    """

    rotary: RotaryTable

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.embedding = Embedding("model.embed_tokens", arch.vocab_size, arch.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(arch, f"model.layers.{index}", kind) for index, kind in enumerate(arch.layers)
        )
        self.norm = RMSNorm("model.norm", arch.hidden_size)
        self.head = (
            None
            if arch.tie_word_embeddings
            else Linear(["lm_head"], arch.hidden_size, [arch.vocab_size], bias=False)
        )

    def slots(self) -> Iterator[WeightSlot]:
        """Every checkpoint tensor that this model needs."""
        for module in self.modules():
            if isinstance(module, (Linear, RMSNorm, Embedding, ExpertStack)):
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
        hidden = self.embedding(token_ids)
        rotary = self.rotary.at(positions)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            hidden = layer(hidden, rotary, keys, values, metadata)
        hidden = rms_norm(hidden[logit_rows], self.norm.weight, self.arch.rms_norm_eps)
        head = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(hidden, head).to(torch.float32)


def build_decoder(arch: Architecture, config: Any) -> Decoder:
    """A decoder on the meta device; its rotary frequencies, which are no weights, are real."""
    with torch.device("meta"):
        decoder = Decoder(arch)
    decoder.rotary = RotaryTable(config, arch.head_dim)
    return decoder
