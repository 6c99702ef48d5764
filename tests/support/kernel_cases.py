"""Calls of every operator of `Kernels`, over odd shapes and, for a device, over those of published models.

Short ones run in Triton's interpreter in a moment. A new operator or layout gets its case here, and both the
tests and benchmarks/gpu check it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from support.kernel_case import Inputs, KernelCase
from support.quantized_matrices import random_matrix
from support.ragged_batches import RaggedBatch, make_layer
from support.sampling_rows import sampling_rows
from torch import Tensor

from ondol.kernels.kv_layer import KVLayer

EPS = 1e-6
BLOCK_SIZE = 16

# (query heads, KV heads, head size): grouped, one to one, one for all.
HEADS = ((6, 2, 64), (3, 3, 96), (7, 1, 128))
LONG_HEADS = ((32, 32, 128), (28, 4, 128))
LONG_VOCAB_SIZE = 151_936

FORMATS: dict[str, dict[str, Any]] = {
    "int8-rows": {"kind": "int8", "group_size": None},
    "int8-groups-zeros": {
        "kind": "int8",
        "group_size": 32,
        "has_zeros": True,
        "scale_dtype": torch.float16,
    },
    "int4": {"kind": "int4", "group_size": 128, "scale_dtype": torch.float16},
    "int4-zeros": {"kind": "int4", "group_size": 32, "has_zeros": True, "scale_dtype": torch.float16},
    "nf4": {"kind": "nf4", "group_size": 64},
    "nf4-nested": {"kind": "nf4", "group_size": 64, "is_nested": True},
    "fp4": {"kind": "fp4", "group_size": 64},
    "fp8": {"kind": "fp8_e4m3", "group_size": 128},
}
# The formats whose experts are compared in real sizes, which takes a CPU seconds to draw.
LONG_EXPERTS = ("int8-rows", "int4", "nf4")


def all_cases() -> list[KernelCase]:
    """Every case; those with `is_long` are for a device."""
    return [
        *_norms(),
        *_feed_forward(),
        *_rotary(),
        *_decodes(),
        *_prefills(),
        *_plain_linears(),
        *_linears(),
        *_experts(),
        *_samplings(),
    ]


def _norms() -> Iterator[KernelCase]:
    for num_rows, size, is_long in ((1, 64, False), (3, 896, False), (65, 200, False), (64, 3584, True)):
        label = f"{num_rows}x{size}"
        yield KernelCase(
            "rms_norm",
            label,
            lambda inputs, n=num_rows, h=size: (inputs.normal(n, h), inputs.normal(h, mean=1.0), EPS),
            is_long=is_long,
        )
        yield KernelCase(
            "add_rms_norm",
            label,
            lambda inputs, n=num_rows, h=size: (
                inputs.normal(n, h),
                inputs.normal(n, h),
                inputs.normal(h, mean=1.0),
                EPS,
            ),
            is_long=is_long,
        )


def _feed_forward() -> Iterator[KernelCase]:
    for num_rows, width, is_long in ((1, 96, False), (33, 1408, False), (64, 18_944, True)):
        yield KernelCase(
            "silu_mul",
            f"{num_rows}x{width}",
            lambda inputs, n=num_rows, i=width: (inputs.normal(n, 2 * i),),
            is_long=is_long,
        )
    yield KernelCase("sigmoid", "33x1", lambda inputs: (inputs.normal(33, 1),))
    yield KernelCase("logsumexp", "3x1000", lambda inputs: (inputs.normal(3, 1000),))
    for num_rows, normalize in ((1, False), (33, True)):
        yield KernelCase(
            "route",
            f"{num_rows}-rows" + "-normalized" * normalize,
            lambda inputs, n=num_rows, norm=normalize: (inputs.ranks(n, 60), 4, norm),
        )


def _rotary() -> Iterator[KernelCase]:
    for heads, is_long in [*((heads, False) for heads in HEADS), *((heads, True) for heads in LONG_HEADS)]:
        for num_rows, codes in product((1, 33) if not is_long else (64, 1000), (False, True)):
            yield KernelCase(
                "rotate_and_write_kv",
                f"{num_rows}-rows-{_name(heads)}" + "-fp8" * codes,
                lambda inputs, n=num_rows, h=heads, c=codes: _rotary_arguments(inputs, n, h, has_codes=c),
                written=(2,),
                is_long=is_long,
            )


def _rotary_arguments(
    inputs: Inputs, num_rows: int, heads: tuple[int, int, int], *, has_codes: bool
) -> tuple[object, ...]:
    num_heads, num_kv_heads, head_dim = heads
    num_blocks = num_rows // BLOCK_SIZE + 3
    angles = torch.outer(torch.arange(num_rows) + 100.0, torch.arange(head_dim // 2) + 1.0) / 50
    angles = torch.cat((angles, angles), dim=-1)[:, None, :]
    states = inputs.normal(num_rows, num_heads + 2 * num_kv_heads, head_dim)
    cache = (inputs.normal(num_blocks, BLOCK_SIZE, num_kv_heads, head_dim) for _ in range(2))
    layer = make_layer(*cache, has_codes=has_codes)
    slots = torch.randperm(num_blocks * BLOCK_SIZE)[:num_rows]
    return states, (inputs.put(angles.cos()), inputs.put(angles.sin())), layer, inputs.put(slots)


def _decodes() -> Iterator[KernelCase]:
    ragged = (1, 16, 17, 255, 256, 257, 300)
    for heads, window in ((HEADS[0], None), (HEADS[1], 13), (HEADS[2], 256)):
        yield from _attention(f"decode-{_name(heads)}-window-{window}", heads, ragged, (), window)
    for heads in LONG_HEADS:
        lengths = tuple(1 + 37 * index for index in range(64))
        yield from _attention(f"decode-64-rows-{_name(heads)}", heads, lengths, (), None, is_long=True)
        yield from _attention(f"decode-8192-{_name(heads)}", heads, (8192,), (), None, is_long=True)


def _prefills() -> Iterator[KernelCase]:
    # (positions before, rows): from the start, over a cached prefix, across a split of 256 keys.
    spans = ((0, 33), (40, 17), (250, 20), (16, 2))
    for heads, window in ((HEADS[0], None), (HEADS[1], 21), (HEADS[2], None)):
        yield from _attention(f"prefill-{_name(heads)}-window-{window}", heads, (), spans, window)
    yield from _attention("mixed", HEADS[0], (5, 40), ((0, 7), (17, 65)), None)
    for heads in LONG_HEADS:
        yield from _attention(
            f"prefill-1000-{_name(heads)}", heads, (99,), ((0, 1000), (512, 129)), None, is_long=True
        )


def _attention(
    label: str,
    heads: tuple[int, int, int],
    decodes: Sequence[int],
    spans: Sequence[tuple[int, int]],
    window: int | None,
    *,
    is_long: bool = False,
) -> Iterator[KernelCase]:
    """Over a cache of plain values, and over one of codes."""

    def build(inputs: Inputs, *, has_codes: bool) -> tuple[object, ...]:
        batch = RaggedBatch(
            decodes,
            spans,
            heads=heads[:2],
            head_dim=heads[2],
            block_size=BLOCK_SIZE,
            dtype=inputs.dtype,
            garbage=inputs.stale_value,
            device=inputs.device,
            has_codes=has_codes,
        )
        layer = batch.layer if has_codes else KVLayer(*map(inputs.put, batch.layer.tensors()))
        return inputs.put(batch.query), layer, batch.metadata, batch.scale, window

    for codes in (False, True):
        yield KernelCase(
            "paged_attention", label + "-fp8" * codes, partial(build, has_codes=codes), is_long=is_long
        )


def _plain_linears() -> Iterator[KernelCase]:
    short = ((1, 100, 33), (70, 64, 40))
    long = tuple((num_rows, 3584, num_out) for num_rows in (1, 64, 1000) for num_out in (4608, 37_888))
    for sizes, is_long in [*((sizes, False) for sizes in short), *((sizes, True) for sizes in long)]:
        num_rows, num_in, num_out = sizes
        yield KernelCase(
            "linear",
            f"{num_rows}-rows-{num_in}-to-{num_out}",
            lambda inputs, n=num_rows, k=num_in, m=num_out: (
                inputs.normal(n, k),
                inputs.normal(m, k, std=k**-0.5),
                inputs.normal(m) if n > 1 else None,
            ),
            is_long=is_long,
        )


def _linears() -> Iterator[KernelCase]:
    for name, fmt in FORMATS.items():
        for num_rows, widths, num_in in ((1, (48, 16), 256), (17, (80,), 384), (65, (33,), 128)):
            yield _linear(f"{name}-{num_rows}-rows", fmt, num_rows, widths, num_in)
        for num_rows in (1, 64, 256):
            label = f"{name}-{num_rows}-rows-qwen2"
            yield _linear(label, fmt, num_rows, (3584, 512, 512), 3584, is_long=True)
    yield _linear("int4-ordered", {**FORMATS["int4-zeros"], "is_ordered": True}, 5, (48,), 256)


def _linear(
    label: str,
    fmt: Mapping[str, Any],
    num_rows: int,
    widths: tuple[int, ...],
    num_in: int,
    *,
    is_long: bool = False,
) -> KernelCase:
    def build(inputs: Inputs) -> tuple[object, ...]:
        matrix = random_matrix(part_rows=widths, num_in=num_in, **fmt).to(inputs.device)
        bias = inputs.normal(sum(widths)) if num_rows != 1 else None
        return inputs.normal(num_rows, num_in), matrix, bias

    return KernelCase("quantized_linear", label, build, is_long=is_long)


def _experts() -> Iterator[KernelCase]:
    # (rows, experts, experts per row, hidden size, expert's width): few rows unsorted, many grouped.
    short = ((1, 5, 2, 128, 64), (40, 6, 2, 128, 128))
    long = tuple((num_rows, 60, 4, 2048, 1408) for num_rows in (1, 64, 1000))
    for sizes, is_long in [*((sizes, False) for sizes in short), *((sizes, True) for sizes in long)]:
        label = f"{sizes[0]}-rows-{sizes[1]}-experts-{sizes[3]}x{sizes[4]}"
        yield KernelCase(
            "mixture_of_experts", label, lambda inputs, s=sizes: _plain_experts(inputs, *s), is_long=is_long
        )
        for name in LONG_EXPERTS if is_long else FORMATS:
            yield KernelCase(
                "quantized_mixture_of_experts",
                f"{name}-{label}",
                lambda inputs, s=sizes, f=FORMATS[name]: _quantized_experts(inputs, f, s),
                is_long=is_long,
            )


def _plain_experts(
    inputs: Inputs, num_rows: int, num_experts: int, top_k: int, hidden_size: int, width: int
) -> tuple[object, ...]:
    gate_up = inputs.normal(num_experts, 2 * width, hidden_size, std=0.05)
    down = inputs.normal(num_experts, hidden_size, width, std=0.05)
    return *_routed(inputs, num_rows, num_experts, top_k, hidden_size), gate_up, down


def _quantized_experts(
    inputs: Inputs, fmt: Mapping[str, Any], sizes: tuple[int, int, int, int, int]
) -> tuple[object, ...]:
    num_rows, num_experts, top_k, hidden_size, width = sizes
    gate_up = random_matrix(part_rows=(width, width), num_in=hidden_size, num_experts=num_experts, **fmt)
    down = random_matrix(part_rows=(hidden_size,), num_in=width, num_experts=num_experts, **fmt)
    stacks = [gate_up.to(inputs.device)], down.to(inputs.device)
    return *_routed(inputs, num_rows, num_experts, top_k, hidden_size), *stacks


def _routed(
    inputs: Inputs, num_rows: int, num_experts: int, top_k: int, hidden_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    experts = torch.stack([torch.randperm(num_experts)[:top_k] for _ in range(num_rows)])
    return inputs.normal(num_rows, hidden_size), inputs.uniform(num_rows, top_k), inputs.put(experts)


def _samplings() -> Iterator[KernelCase]:
    # What Qwen2's and Llama 3's generation_config.json ask for, and what they would not.
    qwen = {"temperature": 0.7, "top_k": 20, "top_p": 0.8}
    llama = {"temperature": 0.6, "top_p": 0.9}
    mixed = ({"temperature": 0.0}, {"temperature": 1.5}, {"min_p": 0.1}, qwen)
    yield _sampling("mixed-1000", mixed, 4, 1000)
    yield _sampling("top-k-1537", ({"top_k": 7},), 2, 1537)
    for num_rows in (1, 64, 256):
        for name, row in (("greedy", mixed[0]), ("plain", {}), ("qwen", qwen), ("llama", llama)):
            label = f"{name}-{num_rows}x{LONG_VOCAB_SIZE}"
            yield _sampling(label, (row,), num_rows, LONG_VOCAB_SIZE, is_long=True)
    flat = {"temperature": 1e3, "top_k": 5000, "top_p": 0.95}
    yield _sampling("flat", (flat,), 64, LONG_VOCAB_SIZE, is_long=True)


def _sampling(
    label: str, kinds: Sequence[Mapping[str, float]], num_rows: int, vocab_size: int, *, is_long: bool = False
) -> KernelCase:
    rows = [{**kinds[row % len(kinds)], "seed": row, "position": 9 * row} for row in range(num_rows)]

    def build(inputs: Inputs) -> tuple[object, ...]:
        # Logits are float32 whatever the model computes in.
        logits = torch.randn(num_rows, vocab_size) * 3
        return logits.to(inputs.device), sampling_rows(rows, inputs.device)

    return KernelCase("sample_tokens", label, build, is_long=is_long)


def _name(heads: tuple[int, int, int]) -> str:
    return "{}-over-{}-heads-of-{}".format(*heads)
