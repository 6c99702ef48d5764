"""A disk that is full, or that may not be used, as an error for a person.

Knows nothing about what is written or read. The invariant: any other failure of the system stays what it is.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ondol.errors import ConfigError, DoesNotFit, OndolError

# No space, a quota, and a limit on the size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)


@contextmanager
def disk_errors_told() -> Iterator[None]:
    """Turn what the disk refuses inside the block into an OndolError."""
    try:
        yield
    except OSError as error:
        told = disk_error(error)
        if told is None:
            raise
        raise told from error


def disk_error(error: OSError) -> OndolError | None:
    """The error for a person; None where it is not about a disk."""
    if error.errno in FULL:
        return DoesNotFit(
            f"The disk is full: {error.strerror}. Free some space, or choose other folders with ONDOL_HOME "
            "and HF_HOME."
        )
    if error.errno in UNUSABLE and error.filename is not None:
        return ConfigError(
            f"{error.filename} cannot be used: {error.strerror}. Choose another path, or change what this "
            "user may do there."
        )
    return None
