"""Arrays in files without a name, for what memory should not hold."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray


def scratch_array(shape: Sequence[int], dtype: DTypeLike) -> NDArray[np.generic]:
    """Zeros of this shape, mapped from a file of the system's temporary folder that has no name.

    The file goes with the array, and with the process however it ends, so that none is left behind. Its space is
    reserved at once where the system can do so: OSError if the disk is full. `TMPDIR` names another folder where the
    temporary one lies in memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size == 0:
        return np.zeros(tuple(shape), dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of some file systems
                    raise
        return np.memmap(file, dtype=dtype, mode="r+", shape=tuple(shape))
