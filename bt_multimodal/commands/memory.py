"""How the process holds memory on CPUs."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next allocation instead of giving it back to the system.

    By default it returns every block above 32 MB at once, and a training step on a CPU, which asks
    for the same large tensors again and again, spends its time on page faults. The process then
    stays as large as it once was.

    Returns:
        Whether the C library took it; elsewhere than on Linux with glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return bool(mallopt and mallopt(_M_TRIM_THRESHOLD, _MOST) and mallopt(_M_MMAP_THRESHOLD, _MOST))
