import torch

from ondol.kernels.kv_layer import KVLayer

HEAD_DIM = 8


def test_writing_touches_the_given_slots_and_no_others():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    slots, others = order[:5], order[5:]
    layer = KVLayer(*torch.zeros(2, 3, 4, 2, HEAD_DIM))
    key, value = torch.randn(2, 5, 2, HEAD_DIM)
    layer.write(key, value, slots)
    for read, written in zip(layer.read(torch.arange(3)), (key, value), strict=True):
        flat = read.view(12, 2, HEAD_DIM)
        assert torch.equal(flat[slots], written)
        assert not flat[others].any()


def test_a_cleared_block_reads_as_zero_whatever_was_there():
    layer = KVLayer(*torch.full((2, 3, 4, 2, HEAD_DIM), float("nan")))
    layer.clear(torch.tensor([1]))
    for read in layer.read(torch.tensor([1])):
        assert not read.any()
    for read in layer.read(torch.tensor([0, 2])):
        assert read.isnan().all()
