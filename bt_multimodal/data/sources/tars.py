"""Tar files of samples in WebDataset's layout: adjacent members with the same name up to the first dot.

Nothing is unpacked: a member is a stretch of its tar file, so its name or a link leads nowhere else.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bt_multimodal.compat import forget_members
from bt_multimodal.data.columns import printable
from bt_multimodal.safe_files import LARGEST_RECORD, check_regular


class Stretch(NamedTuple):
    """The bytes of a tar file that hold a member's content."""

    path: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{printable(self.path)} at byte {self.offset}"

    def read_bytes(self) -> bytes:
        """The bytes of the stretch.

        Raises:
            OSError: the file cannot be read.
        """
        if self.size > LARGEST_RECORD:
            raise OSError(f"{self} has {self.size:,} bytes, over the limit of {LARGEST_RECORD:,}")
        check_regular(self.path)
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def samples(path: Path) -> Iterator[dict[str, Stretch]]:
    """The samples of an uncompressed tar file in order: members by extension (``jpg``, ``cls``).

    The extension is what follows the first dot, in lower case. Links, hidden and sparse members are
    skipped; of two members with the same name the last counts.

    Raises:
        OSError: the file cannot be read, is not a tar file or is damaged.
    """
    last = ""
    members: dict[str, Stretch] = {}
    for name, stretch in _files(path):
        folder, _, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot:
            continue
        key = f"{folder}/{stem}"
        if members and key != last:
            yield members
            members = {}
        last = key
        members[extension.lower()] = stretch
    if members:
        yield members


def first(members: Mapping[str, Stretch], extensions: Sequence[str]) -> Stretch | None:
    """The member with the first of the ``extensions`` that the sample has, or ``None``."""
    return next((members[name] for name in extensions if name in members), None)


def _files(path: Path) -> Iterator[tuple[str, Stretch]]:
    try:
        check_regular(path)
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = file.seek(0, os.SEEK_END)
            offset = 0
            while (member := tar.next()) is not None:
                forget_members(tar)
                stored = member.isreg() and not member.issparse()
                # The size in a header may be anything, even negative.
                if tar.offset <= offset or (stored and member.offset_data + member.size > end):
                    raise tarfile.ReadError(f"a member of {member.size} bytes at byte {offset} of {end}")
                offset = tar.offset
                if stored:
                    yield member.name, Stretch(str(path), member.offset_data, member.size)
            file.seek(offset)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes an invalid header for the end
                raise tarfile.ReadError(f"no header at byte {offset}")
    except OSError:
        raise
    except Exception as error:  # hostile headers make tarfile raise errors of many types
        raise OSError(str(error) or type(error).__name__) from error
