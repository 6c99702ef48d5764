"""Arrays arrive as they were added, in one copy."""

import numpy as np
import torch

from ondol.engine.packing import Packing


def test_arrays_of_any_length_arrive_with_shape_and_dtype():
    packing = Packing()
    narrow = np.array([[1, 2, 3]], dtype=np.int32)
    places = [packing.add(values) for values in ([5, 6, 7], narrow, [], narrow[:, :1], [2**40])]
    assert places == [0, 1, 2, 3, 4]
    sent = packing.send(torch.device("cpu"))
    assert [tensor.tolist() for tensor in sent] == [[5, 6, 7], [[1, 2, 3]], [], [[1]], [2**40]]
    assert [tensor.dtype for tensor in sent] == [
        torch.int64,
        torch.int32,
        torch.int64,
        torch.int32,
        torch.int64,
    ]


def test_every_array_begins_at_a_multiple_of_16_bytes_whatever_came_before_it():
    packing = Packing()
    for length in range(1, 6):
        packing.add(np.zeros(length, dtype=np.int32))
    first, *others = packing.send(torch.device("cpu"))
    assert {(tensor.data_ptr() - first.data_ptr()) % 16 for tensor in others} == {0}
