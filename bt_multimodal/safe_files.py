"""Writing files atomically: a file is complete or does not exist, even if the machine stops."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


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
