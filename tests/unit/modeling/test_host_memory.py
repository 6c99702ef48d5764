"""Host memory for a GPU, with the calls that CUDA would get."""

import mmap

import pytest
import torch

from ondol.errors import DoesNotFit
from ondol.modeling.host_memory import HostMemory

GPU = torch.device("cuda")


class Cudart:
    """The two calls, in the order in which they come; the first one answers `status`."""

    def __init__(self, status=0):
        self.status = status
        self.calls = []

    def cudaHostRegister(self, address, size_bytes, flags):
        self.calls.append(("lock", address, size_bytes, flags))
        return self.status

    def cudaHostUnregister(self, address):
        self.calls.append(("unlock", address))

    def synchronize(self):
        self.calls.append(("synchronize",))


@pytest.fixture
def cudart(monkeypatch):
    fake = Cudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    return fake


@pytest.mark.parametrize("size_bytes", [1, mmap.PAGESIZE, 3 * mmap.PAGESIZE + 1])
def test_whole_pages_are_locked_and_unlocked_once_nothing_is_copied_any_more(cudart, size_bytes):
    memory = HostMemory(size_bytes, GPU)
    address = memory.data.data_ptr()
    assert memory.data.shape == (size_bytes,)
    assert address % mmap.PAGESIZE == 0
    ((_, locked, locked_bytes, _),) = cudart.calls
    assert locked == address
    assert locked_bytes % mmap.PAGESIZE == 0
    behind = memory.data.untyped_storage().data_ptr() + memory.data.untyped_storage().nbytes()
    assert size_bytes <= locked_bytes <= behind - address
    del memory
    assert cudart.calls[1:] == [("synchronize",), ("unlock", address)]


def test_memory_that_cannot_be_locked_is_refused_with_what_to_do(cudart):
    cudart.status = 2
    with pytest.raises(DoesNotFit, match=r"CUDA error 2\): lower --cpu-offload-gb"):
        HostMemory(2**20, GPU)
    assert [call[0] for call in cudart.calls] == ["lock"]


def test_a_cpu_locks_nothing(cudart):
    assert HostMemory(10, torch.device("cpu")).data.shape == (10,)
    assert cudart.calls == []
