"""Every kernel goes through Triton's compiler and ptxas, for Hopper and smaller cards, without a GPU.

The interpreter runs kernels as Python and accepts what the compiler does not.
"""

import pytest
import torch
from support.kernel_compiler import SMALL_CARD, compile_launches, recorded_launches
from support.ragged_batches import RaggedBatch, make_layer
from support.sampling_rows import sampling_rows

from ondol.kernels.sampling import SamplingRows
from ondol.kernels.triton.backend import TRITON


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype"),
    [
        ((32, 32), 128, torch.bfloat16),
        ((28, 4), 128, torch.float16),
        pytest.param((4, 2), 64, torch.float32, marks=pytest.mark.slow),
        pytest.param((32, 32), 96, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param((8, 1), 256, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param((8, 1), 256, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_attention_compiles_for_hopper(heads, head_dim, dtype):
    """The slow shapes: seconds of ptxas each."""
    batch = RaggedBatch([5, 300], [(3, 70)], heads=heads, head_dim=head_dim, dtype=dtype)
    *_, prefill = compile_launches(lambda: batch.attend(TRITON), 3)
    if dtype.itemsize == 2:
        assert "wgmma.mma_async" in prefill.asm["ptx"], "prompts run on Hopper's tensor cores"


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype"),
    [
        ((32, 32), 128, torch.bfloat16),
        pytest.param((28, 4), 128, torch.float16, marks=pytest.mark.slow),
        pytest.param((4, 2), 64, torch.float32, marks=pytest.mark.slow),
        pytest.param((8, 1), 256, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_attention_over_codes_compiles_for_hopper(heads, head_dim, dtype):
    """The slow shapes: seconds of ptxas each."""
    shape = {"heads": heads, "head_dim": head_dim, "dtype": dtype, "has_codes": True}
    batch = RaggedBatch([5, 300], [(3, 70)], **shape)
    *_, prefill = compile_launches(lambda: batch.attend(TRITON), 3)
    if dtype.itemsize == 2:
        assert "wgmma.mma_async" in prefill.asm["ptx"], "prompts run on Hopper's tensor cores"


@pytest.mark.slow
@pytest.mark.parametrize("has_codes", [False, True])
@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype"),
    [
        ((32, 32), 128, torch.bfloat16),
        ((8, 1), 256, torch.bfloat16),
        ((32, 32), 128, torch.float32),
        ((8, 1), 256, torch.float32),
    ],
)
def test_attention_fits_cards_before_hopper(heads, head_dim, dtype, has_codes):
    """Seconds of ptxas each."""
    shape = {"heads": heads, "head_dim": head_dim, "dtype": dtype, "has_codes": has_codes}
    batch = RaggedBatch([5, 300], [(3, 70)], **shape)
    compile_launches(lambda: batch.attend(TRITON), 3, SMALL_CARD)


@pytest.mark.slow
def test_small_operators_and_sampling_fit_cards_before_hopper():
    """Seconds of ptxas each."""
    hidden, residual = torch.zeros(2, 3, 5120, dtype=torch.bfloat16)
    layer = make_layer(*torch.zeros(2, 4, 16, 4, 128, dtype=torch.bfloat16), has_codes=True)
    heads = torch.zeros(3, 36, 128, dtype=torch.bfloat16)
    rotary = (heads[:, :1].contiguous(), heads[:, :1].contiguous())

    def operate():
        TRITON.add_rms_norm(hidden, residual, hidden[0], 1e-6)
        TRITON.silu_mul(torch.zeros(3, 2 * 1100, dtype=torch.bfloat16))
        TRITON.rotate_and_write_kv(heads, rotary, layer, torch.arange(3))
        TRITON.sample_tokens(torch.zeros(3, 151_936), sampling_rows([{}] * 3))

    compile_launches(operate, 5, SMALL_CARD)


@pytest.mark.parametrize("width", [896, 5120])
def test_norms_compile_for_hopper(width):
    hidden, residual = torch.zeros(2, 3, width, dtype=torch.bfloat16)
    weight = torch.zeros(width, dtype=torch.bfloat16)

    def operate():
        TRITON.rms_norm(hidden, weight, 1e-6)
        TRITON.add_rms_norm(hidden, residual, weight, 1e-6)

    compile_launches(operate, 2)


@pytest.mark.parametrize("has_codes", [False, True])
def test_product_and_rotation_compile_for_hopper(has_codes):
    layer = make_layer(*torch.zeros(2, 4, 16, 4, 128, dtype=torch.bfloat16), has_codes=has_codes)
    heads = torch.zeros(3, 36, 128, dtype=torch.bfloat16)
    rotary = (heads[:, :1].contiguous(), heads[:, :1].contiguous())

    def operate():
        TRITON.silu_mul(torch.zeros(3, 2 * 1100, dtype=torch.bfloat16))
        TRITON.rotate_and_write_kv(heads, rotary, layer, torch.arange(3))

    compile_launches(operate, 2)


def test_sampling_compiles_for_hopper():
    rows = sampling_rows([{}] * 3)
    *_, compiled = compile_launches(lambda: TRITON.sample_tokens(torch.zeros(3, 151_936), rows), 2)
    # Noise is decided where the logarithm's argument is next to 1, and there the approximation is far off.
    assert "lg2.approx" not in compiled.asm["ptx"]


def test_sampling_is_compiled_once_for_any_number_of_rows():
    """Triton compiles anew where a pointer that was a multiple of 16 no longer is."""

    def alignments(num_rows):
        # As the engine sends them: columns of one tensor.
        packed = torch.zeros(7, num_rows, dtype=torch.int64)
        with recorded_launches() as launches:
            TRITON.sample_tokens(torch.zeros(num_rows, 2000), SamplingRows(*packed))
        return [
            (launch.kernel, parameter.name, launch.arguments[parameter.name].data_ptr() % 16 == 0)
            for launch in launches
            for parameter in launch.kernel.params
            if isinstance(launch.arguments[parameter.name], torch.Tensor)
            and not parameter.do_not_specialize_on_alignment
        ]

    assert len(alignments(1)) > 5
    assert all(alignments(num_rows) == alignments(1) for num_rows in range(2, 9))
