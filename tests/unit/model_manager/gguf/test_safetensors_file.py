import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from ondol.model_manager.gguf.checkpoint import CheckpointTensor
from ondol.model_manager.gguf.safetensors_file import header_bytes, write_tensors


def tensor_of(name, values):
    return CheckpointTensor(name, values.shape, "F32", lambda: iter([values]))


@given(shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_safetensors_library_reads_back_what_was_written(tmp_path_factory, shapes):
    path = tmp_path_factory.getbasetemp() / "property.safetensors"
    arrays = {
        f"가중치.{index}": np.random.default_rng(index).standard_normal(shape).astype(np.float32)
        for index, shape in enumerate(shapes)
    }
    sizes = []
    write_tensors(path, [tensor_of(name, values) for name, values in arrays.items()], on_written=sizes.append)
    loaded = load(path.read_bytes())
    assert loaded.keys() == arrays.keys()
    assert all(np.array_equal(loaded[name], values) for name, values in arrays.items())
    assert sizes == [values.nbytes for values in arrays.values()]


def test_data_starts_at_a_multiple_of_eight_bytes():
    for length in range(1, 20):
        head = header_bytes([tensor_of("x" * length, np.zeros(3, dtype=np.float32))])
        assert len(head) % 8 == 0
