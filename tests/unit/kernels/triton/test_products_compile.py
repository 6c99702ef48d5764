"""Products by stored weights go through Triton's compiler and ptxas, without a GPU."""

from collections import Counter

import pytest
import torch
from support.kernel_compiler import MAX_GRID, SMALL_CARD, compile_launches, recorded_launches
from support.quantized_matrices import random_matrix

from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix
from ondol.kernels.triton.backend import DETERMINISTIC, TRITON
from ondol.kernels.triton.quantized import dequantize

FORMATS = {
    "int8": {"kind": "int8", "group_size": None},
    "int8 with zeros": {"kind": "int8", "group_size": 128, "has_zeros": True},
    "int4": {"kind": "int4", "group_size": 128, "scale_dtype": torch.float16},
    "int4 in an order": {"kind": "int4", "group_size": 128, "has_zeros": True, "is_ordered": True},
    "int4 in groups of 32": {"kind": "int4", "group_size": 32},
    "nf4": {"kind": "nf4", "group_size": 64},
    "nf4 nested": {"kind": "nf4", "group_size": 64, "is_nested": True},
    "fp8": {"kind": "fp8_e4m3", "group_size": 128},
}
QUICK = ("int4", "nf4 nested")


def formats(*quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]


@pytest.mark.parametrize("name", formats(*QUICK))
def test_products_compile_for_hopper(name):
    """The slow formats: seconds of ptxas each."""
    matrix = random_matrix(part_rows=(512, 256), num_in=1024, **FORMATS[name])
    for num_rows in (1, 40):
        hidden = torch.zeros(num_rows, 1024, dtype=torch.bfloat16)
        (kernel,) = compile_launches(lambda rows=hidden: TRITON.quantized_linear(rows, matrix, None), 1)
        # The same instruction for any number of rows: results do not depend on how many there are.
        assert "mma.sync.aligned.m16n8k16" in kernel.asm["ptx"]
        assert "wgmma" not in kernel.asm["ptx"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_products_that_do_not_depend_on_other_rows_compile_for_hopper(dtype):
    """Float32 is slow: seconds of ptxas for what bfloat16 shows."""
    sources = set()
    for num_rows, num_out in ((1, 4096), (300, 4096), (300, 32000)):
        hidden = torch.zeros(num_rows, 512, dtype=dtype)
        weight = torch.zeros(num_out, 512, dtype=dtype)
        (kernel,) = compile_launches(lambda h=hidden, w=weight: DETERMINISTIC.linear(h, w, None), 1)
        sources.add(kernel.asm["ptx"])
    # One program for any number of rows.
    assert len(sources) == 2


@pytest.mark.parametrize("num_rows", [1, 40])
def test_plain_experts_compile_for_hopper(num_rows):
    hidden = torch.zeros(num_rows, 256, dtype=torch.bfloat16)
    gate_up = torch.zeros(16, 256, 256, dtype=torch.bfloat16)
    down = torch.zeros(16, 256, 128, dtype=torch.bfloat16)

    def operate():
        weights, experts = TRITON.route(hidden[:, :16].contiguous(), 4, False)
        TRITON.mixture_of_experts(hidden, weights, experts, gate_up, down)

    compile_launches(operate, 4 if num_rows == 1 else 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_quantized_experts_compile_for_hopper(name):
    """Seconds of ptxas each."""
    gate_up = random_matrix(part_rows=(128, 128), num_in=256, num_experts=16, **FORMATS[name])
    down = random_matrix(part_rows=(256,), num_in=128, num_experts=16, **FORMATS[name])
    hidden = torch.zeros(40, 256, dtype=torch.bfloat16)
    experts = torch.zeros(40, 4, dtype=torch.int64)
    weights = torch.zeros(40, 4, dtype=torch.bfloat16)
    compile_launches(
        lambda: TRITON.quantized_mixture_of_experts(hidden, weights, experts, [gate_up], down), 4
    )


@pytest.mark.parametrize("name", formats(*QUICK))
def test_dequantization_compiles_for_hopper(name):
    """The slow formats: seconds of ptxas each."""
    matrix = random_matrix(part_rows=(512, 256), num_in=1024, **FORMATS[name])
    hidden = torch.zeros(65, 1024, dtype=torch.bfloat16)
    compile_launches(lambda: TRITON.quantized_linear(hidden, matrix, None), 1)


@pytest.mark.parametrize("name", formats("fp8"))
@pytest.mark.parametrize("num_rows", [40, pytest.param(65, marks=pytest.mark.slow)])
def test_products_compile_for_cards_before_hopper(name, num_rows):
    """Codes of 8-bit floats, which those cards do not know, are quick; others are seconds of ptxas each."""
    matrix = random_matrix(part_rows=(512, 256), num_in=1024, **FORMATS[name])
    hidden = torch.zeros(num_rows, 1024, dtype=torch.bfloat16)
    compile_launches(lambda: TRITON.quantized_linear(hidden, matrix, None), 1, SMALL_CARD)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_experts_and_deterministic_products_compile_for_cards_before_hopper(dtype):
    """Seconds of ptxas each."""
    hidden = torch.zeros(40, 256, dtype=dtype)

    def operate():
        weights, experts = TRITON.route(hidden[:, :16].contiguous(), 4, False)
        stacks = (torch.zeros(16, 256, 256, dtype=dtype), torch.zeros(16, 256, 128, dtype=dtype))
        TRITON.mixture_of_experts(hidden, weights, experts, *stacks)
        DETERMINISTIC.linear(hidden, torch.zeros(32_000, 256, dtype=dtype), None)

    compile_launches(operate, 6, SMALL_CARD)


def specializations(operate, counts):
    """How often each kernel is compiled over all these numbers of rows."""
    seen = set()
    for num_rows in counts:
        with recorded_launches() as launches:
            operate(num_rows)
        seen |= {launch.specialization() for launch in launches}
    return Counter(kernel.__name__ for kernel, _ in seen)


def test_products_are_compiled_for_one_tile_of_rows_and_for_two_and_never_again():
    matrix = random_matrix(part_rows=(512, 256), num_in=1024, **FORMATS["int4"])

    def operate(num_rows):
        TRITON.quantized_linear(torch.zeros(num_rows, 1024, dtype=torch.bfloat16), matrix, None)

    assert specializations(operate, range(1, 65)) == {"_multiply_kernel": 2}


def test_experts_are_compiled_for_single_pairs_and_for_two_sizes_of_groups_and_never_again():
    stacks = (
        torch.zeros(16, 256, 256, dtype=torch.bfloat16),
        torch.zeros(16, 256, 128, dtype=torch.bfloat16),
    )

    def operate(num_rows):
        hidden = torch.zeros(num_rows, 256, dtype=torch.bfloat16)
        weights, experts = TRITON.route(hidden[:, :16].contiguous(), 4, False)
        TRITON.mixture_of_experts(hidden, weights, experts, *stacks)

    found = specializations(operate, [*range(1, 40), 64, 100, 1000, 8192])
    # Twice three products, and the sorting for either size.
    assert found == {"_route_kernel": 1, "_group_kernel": 2, "_multiply_kernel": 6, "_sum_kernel": 1}


def test_a_single_row_of_any_length_is_spread_over_a_grid_that_a_gpu_has():
    matrix = QuantizedMatrix(QuantizedFormat("int4", 64), (70_000,), 1000, is_flat=True)
    with recorded_launches() as launches:
        dequantize(matrix, torch.bfloat16)
    (launch,) = launches
    assert launch.grid[0] * 1024 >= 70_000 * 1000
    assert all(size <= MAX_GRID for size in launch.grid[1:])
