import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.checkpoint_writer import CheckpointWriter, PlannedTensor, split_into_shards

TENSORS = {
    "codes": torch.arange(7, dtype=torch.uint8).view(7, 1),
    "scales": torch.tensor([0.5, -2.0, 3.25]),
    "halves": torch.tensor([[1.5, -1.0]], dtype=torch.bfloat16),
    "format": torch.tensor(3, dtype=torch.uint8),
    "packed": torch.tensor([[-5, 7]], dtype=torch.int32),
    "nothing": torch.empty((0, 4), dtype=torch.float16),
}


def plan(*names):
    return [PlannedTensor(name, TENSORS[name].dtype, tuple(TENSORS[name].shape)) for name in names]


def test_what_was_written_in_any_order_is_what_the_library_reads(tmp_path):
    with CheckpointWriter(tmp_path, [plan(*TENSORS)]) as writer:
        for name in reversed(TENSORS):
            writer.write(name, TENSORS[name])
        size_bytes = writer.size_bytes
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").stat().st_size == size_bytes


def test_a_tensor_that_is_not_contiguous_is_written_as_it_looks(tmp_path):
    tensor = torch.arange(6.0).view(2, 3).T
    with CheckpointWriter(tmp_path, [[PlannedTensor("turned", torch.float32, (3, 2))]]) as writer:
        writer.write("turned", tensor)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["turned"], tensor)


def test_shards_are_named_and_indexed_as_the_hub_does(tmp_path):
    groups = [plan("codes", "scales"), plan("halves"), plan("packed")]
    with CheckpointWriter(tmp_path, groups, shard_bytes=20) as writer:
        for planned in (planned for group in groups for planned in group):
            writer.write(planned.name, TENSORS[planned.name])
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 7 + 12 + 4 + 8},
        "weight_map": {
            "codes": "model-00001-of-00002.safetensors",
            "halves": "model-00002-of-00002.safetensors",
            "packed": "model-00002-of-00002.safetensors",
            "scales": "model-00001-of-00002.safetensors",
        },
    }
    checkpoint = Checkpoint(tmp_path)
    assert all(torch.equal(checkpoint.tensor(name), TENSORS[name]) for name in checkpoint.names)


def test_a_planned_tensor_that_never_came_is_our_own_bug(tmp_path):
    with pytest.raises(AssertionError, match="halves"), CheckpointWriter(tmp_path, [plan("halves")]):
        pass


def test_a_tensor_of_another_shape_than_planned_is_our_own_bug(tmp_path):
    with (
        pytest.raises(AssertionError, match="scales"),
        CheckpointWriter(tmp_path, [plan("scales")]) as writer,
    ):
        writer.write("scales", torch.zeros(4))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=12), st.integers(1, 20))
def test_groups_keep_their_order_stay_whole_and_fill_shards_up_to_the_limit(sizes, shard_bytes):
    groups = [
        [PlannedTensor(f"{number}.{part}", torch.uint8, (size,)) for part, size in enumerate(group)]
        for number, group in enumerate(sizes)
    ]
    shards = split_into_shards(groups, shard_bytes)
    assert [tensor for shard in shards for tensor in shard] == [
        tensor for group in groups for tensor in group
    ]
    for group in groups:
        assert sum(group[0] in shard for shard in shards) == 1
        assert any(all(tensor in shard for tensor in group) for shard in shards)
    for shard in shards:
        is_single = len({tensor.name.split(".")[0] for tensor in shard}) <= 1
        assert is_single or sum(tensor.num_bytes for tensor in shard) <= shard_bytes
