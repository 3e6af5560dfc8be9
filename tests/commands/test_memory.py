"""Freed memory stays with the process where the C library can be told so."""

import os
import platform
import subprocess
import sys

import pytest

from bt_multimodal.commands.memory import keep_freed_memory

BLOCK = 200_000_000  # bytes: above any threshold under which a C library keeps what is freed
# Not in the tests' own process, which would stay as large as it once was.
PROBE = """
import ctypes, os, pathlib, sys
from bt_multimodal.commands.memory import keep_freed_memory
libc, size = ctypes.CDLL(None), int(sys.argv[2])
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
pages = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1])
resident = lambda: pages() * os.sysconf("SC_PAGE_SIZE")
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = libc.malloc(size)
libc.memset(block, 1, size)
libc.free(block)
print(resident() - before)
"""


def grown(how):
    """Bytes that a process has grown by when it has freed its block."""
    # Without what the user may have set of malloc, or put in its place.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))
    }
    command = [sys.executable, "-c", PROBE, how, str(BLOCK)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(found.stdout)


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_freed_memory_is_kept_only_when_asked():
    assert grown("give back") < BLOCK / 4
    assert grown("keep") > 3 * BLOCK / 4
