import pytest

from ondol.cli.sizes import memory_size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (96, "96 B"),
        (1024, "1.0 KiB"),
        (512 * 1024, "512 KiB"),
        (3 * 2**20 // 2, "1.5 MiB"),
        (27 * 2**29, "13.5 GiB"),
        (128 * 2**30, "128 GiB"),
    ],
)
def test_a_size_is_told_in_the_largest_binary_unit_that_it_fills(size_bytes, text):
    assert memory_size(size_bytes) == text
