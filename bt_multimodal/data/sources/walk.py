"""The files below a folder: walked without recursion, links are followed, but not in circles."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bt_multimodal.data.columns import DataError

_SIDE = frozenset({"__MACOSX", "__pycache__"})


class Walked(NamedTuple):
    """What is below a folder; paths are relative to it.

    Attributes:
        files: sorted, without hidden ones.
        skipped: pipes, devices, links that lead nowhere, to a folder above, or where another link leads.
    """

    files: list[str]
    skipped: list[str]


def walk(root: Path) -> Walked:
    """Everything below ``root`` that is not hidden; links are followed.

    Raises:
        DataError: the folder, or one below, cannot be read.
    """
    files: list[str] = []
    skipped: list[str] = []
    linked: set[str] = set()
    waiting = [("", str(root))]
    try:
        while waiting:
            below, folder = waiting.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name[0] == "." or entry.name in _SIDE:
                        continue
                    if _leads_nowhere(entry):
                        skipped.append(below + entry.name)
                    elif entry.is_dir():
                        if entry.is_symlink() and not _is_new(entry, folder, linked):
                            skipped.append(below + entry.name)
                        else:
                            waiting.append((f"{below}{entry.name}{os.sep}", entry.path))
                    elif entry.is_file():
                        files.append(below + entry.name)
                    else:
                        skipped.append(below + entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {str(root)!r}: {error}") from error
    return Walked(sorted(files), sorted(skipped))


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to itself or to another such link."""
    try:
        return entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:
        return True


def _is_new(link: os.DirEntry[str], folder: str, linked: set[str]) -> bool:
    """Whether a link leads to a folder that is not above it and that no link has led to before."""
    target = os.path.realpath(link.path)
    if target in linked or f"{os.path.realpath(folder)}{os.sep}".startswith(target.rstrip(os.sep) + os.sep):
        return False
    linked.add(target)
    return True


def ending(path: str) -> str:
    """The ending of a file's name in lower case with its dot, ``.tar.gz`` as one; ``""`` without one."""
    stem, last = os.path.splitext(path)
    inner = os.path.splitext(stem)[1] if last.lower() in (".gz", ".bz2", ".xz", ".zst") else ""
    return (inner + last).lower()


def counted(files: Sequence[str]) -> str:
    """The files by ending, most first: ``12 .heic, 3 .xml``."""
    counts = Counter(ending(file) or "without an ending" for file in files)
    shown = [f"{count:,} {name}" for name, count in counts.most_common(8)]
    return ", ".join(shown) + (f", {len(counts) - 8} more endings" if len(counts) > 8 else "")
