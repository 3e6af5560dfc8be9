"""Memory allocation of the process on CPUs."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for later allocations instead of returning it to the system.

    By default, glibc returns every block above 32 MB immediately. A training step on a CPU allocates the
    same large tensors again and again and then spends its time on page faults. With this setting the
    process never shrinks.

    Returns:
        Whether the C library accepted the setting. On systems other than Linux with glibc, nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl does not have it
    return bool(mallopt and mallopt(_M_TRIM_THRESHOLD, _MOST) and mallopt(_M_MMAP_THRESHOLD, _MOST))
