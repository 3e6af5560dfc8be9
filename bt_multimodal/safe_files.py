"""Files that are whole or not there, whatever stops the process or the machine."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


def write_safely(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside ``path``, flush it to the disk, and rename it.

    A reader sees the old file or the new one; what a killed process leaves ends in ``.partial``.

    Args:
        write: writes the content to the open file.

    Raises:
        OSError: what the disk refuses; ``path`` is as it was.
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
    """The rename itself to the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
