"""Sizes of memory as people read them.

Knows nothing about what has the size. Invariant: binary units, because memory is made and sold in them.
"""

UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def memory_size(size_bytes: int) -> str:
    """The size in the largest unit that it fills: 13.5 GiB, 512 KiB, 96 B."""
    for unit, factor in UNITS:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.{1 if size_bytes < 100 * factor else 0}f} {unit}"
    return f"{size_bytes} B"
