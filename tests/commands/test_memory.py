"""Freed memory stays with the process where the C library can be told so."""

import subprocess
import sys

from bt_multimodal.commands.memory import keep_freed_memory

# Not in the tests' own process, which would stay as large as it once was.
PROBE = """
import ctypes, pathlib, sys
from bt_multimodal.commands.memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = libc.malloc(200_000_000)
libc.memset(block, 1, 200_000_000)
libc.free(block)
print(resident() - before)
"""


def grown(how):
    found = subprocess.run([sys.executable, "-c", PROBE, how], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_freed_memory_is_kept_only_when_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    monkeypatch.undo()
    if sys.platform.startswith("linux"):
        assert grown("give back") < 50_000_000
        assert grown("keep") > 150_000_000
