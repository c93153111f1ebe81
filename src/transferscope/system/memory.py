"""Memory that this process frees."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(limit: int = 1 << 30) -> None:
    """Let glibc keep up to `limit` bytes of freed memory for the next allocation, instead of returning it at once.

    By default it maps every large block anew and the kernel clears it, which costs training of small networks 13 %
    (docs/log.md). Does nothing on other systems.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_TRIM_THRESHOLD, limit)
        library.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the largest that it takes
