"""Reading only what is a file of a sane size, and writing files atomically.

A written file is complete or does not exist, even if the machine stops.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
LARGEST_RECORD = 2**30  # bytes of one record that is read whole


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path is, or leads to, a regular file: a pipe would wait for ever, a device has no end.

    Raises:
        OSError: it is a folder, a pipe, a device or a socket, or there is none.
    """
    mode = os.stat(path).st_mode  # of what a link leads to
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        raise OSError(f"not a file but a {kinds.get(stat.S_IFMT(mode), 'device')}")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: as `check_regular`, or it cannot be opened.
    """
    check_regular(path)
    return path.open("rb")


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: it is larger, or as in `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"{size:,} bytes are over the limit of {most:,} for one record")
        return file.read(size)


def write_safely(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file next to ``path``, flush it to the disk, and rename it to ``path``.

    Readers see either the old file or the new one. A killed process may leave a file with the extension
    ``.partial``.

    Args:
        path: the file to write.
        write: writes the content to the open file.

    Raises:
        OSError: the file cannot be written; ``path`` is unchanged.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Flush the rename to the disk, on systems that support it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
