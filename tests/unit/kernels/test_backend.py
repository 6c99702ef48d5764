import pytest
import torch
from triton.runtime.errors import OutOfResources

from ondol.errors import DeviceUnusable
from ondol.kernels import backend, operators, paged_attention
from ondol.kernels.backend import REFERENCE, KernelFailure, choose_kernels, kernel_failures
from ondol.kernels.triton import backend as triton_backend
from ondol.modeling.kernel_module import KernelModule, use_kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def hopper(monkeypatch):
    """The card that is asked about where the device is a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_a_card_that_triton_is_not_made_for_gets_the_reference_and_a_note(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    kernels, (note,) = choose_kernels(torch.device("cuda"))
    assert kernels is REFERENCE
    assert note.endswith("the card's compute capability is 7.5, they need 8.0")


def test_a_cpu_computes_with_the_torch_reference():
    kernels, notes = choose_kernels(CPU)
    assert kernels is REFERENCE
    assert notes == ()
    assert kernels.rms_norm is operators.rms_norm
    assert kernels.paged_attention is paged_attention.paged_attention


@pytest.mark.parametrize(
    "error",
    [
        OutOfResources(300_000, 232_448, "shared memory"),
        RuntimeError("no\ndriver"),
        AssertionError("libcuda.so cannot found!"),
    ],
)
def test_a_gpu_on_which_no_kernel_can_be_compiled_gets_the_reference_and_a_note(monkeypatch, error):
    def fail(kernels, device):
        raise error

    monkeypatch.setattr(triton_backend, "wrong_probe", fail)
    kernels, (note,) = choose_kernels(torch.device("cuda"))
    assert kernels is REFERENCE
    assert note.startswith(
        "Triton's kernels cannot be used; the torch reference serves instead, more slowly: "
    )
    assert type(error).__name__ in note
    assert "\n" not in note


def test_a_gpu_gets_triton_if_every_probe_is_answered_rightly(monkeypatch):
    monkeypatch.setattr(triton_backend, "wrong_probe", lambda kernels, device: None)
    assert choose_kernels(torch.device("cuda")) == (triton_backend.TRITON, ())


def test_a_gpu_that_answers_a_probe_wrongly_gets_the_reference_and_a_note(monkeypatch):
    monkeypatch.setattr(triton_backend, "wrong_probe", lambda kernels, device: "sample_tokens")
    kernels, (note,) = choose_kernels(torch.device("cuda"))
    assert kernels is REFERENCE
    assert note.endswith("a probe of sample_tokens computed something else than it should")


def test_a_gpu_without_triton_installed_gets_the_reference_and_a_note(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(backend.importlib, "import_module", fail)
    kernels, notes = choose_kernels(torch.device("cuda"))
    assert kernels is REFERENCE
    assert notes[0].endswith("No module named 'triton'")


def test_a_cpu_computes_deterministically_where_that_is_asked_for():
    kernels, notes = choose_kernels(CPU, is_deterministic=True)
    assert kernels.is_deterministic
    assert notes == ()


def test_a_gpu_gets_tritons_deterministic_kernels_or_says_how_to_go_on(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(triton_backend, "why_unusable", lambda device: None)
    assert choose_kernels(gpu, is_deterministic=True) == (triton_backend.DETERMINISTIC, ())
    monkeypatch.setattr(triton_backend, "why_unusable", lambda device: "no compiler")
    with pytest.raises(DeviceUnusable, match=r"no compiler.*start without it, or with --device cpu"):
        choose_kernels(gpu, is_deterministic=True)


def test_an_engines_kernels_reach_every_module_of_its_model():
    outer, inner = KernelModule(), KernelModule()
    outer.add_module("inner", inner)
    outer.add_module("other", torch.nn.Linear(1, 1))
    chosen = backend.Kernels("chosen")
    assert outer.kernels is REFERENCE
    use_kernels(outer.named_modules(), chosen)
    assert outer.kernels is inner.kernels is chosen


def test_what_a_compiler_raises_becomes_an_error_of_the_step():
    error = OutOfResources(300_000, 232_448, "shared memory")
    expected = pytest.raises(KernelFailure, match=r"OutOfResources: .*shared memory")
    with expected as found, kernel_failures(triton_backend.TRITON):
        raise error
    assert found.value.__cause__ is error
    with pytest.raises(OutOfResources), kernel_failures(REFERENCE):
        raise error
