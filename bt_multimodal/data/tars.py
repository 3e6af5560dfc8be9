"""Tar files of samples, as WebDataset has them: neighbours whose names agree up to the first dot are one.

Nothing is unpacked: a member is a stretch of its tar file, wherever its name or a link would lead.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bt_multimodal.compat import forget_members


class Stretch(NamedTuple):
    """The bytes of a file that are a member's content."""

    path: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset}"

    def read_bytes(self) -> bytes:
        """Those bytes.

        Raises:
            OSError: the file cannot be read.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def samples(path: Path) -> Iterator[dict[str, Stretch]]:
    """The samples of an uncompressed tar file in order, each its members by extension (``jpg``, ``cls``).

    The extension is what follows the first dot, in lower case. Links, hidden and sparse members are
    passed over; of two alike the last counts.

    Raises:
        OSError: the file cannot be read, is no tar file or is damaged.
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
    """The member whose extension comes first in ``extensions``, if there is any."""
    return next((members[name] for name in extensions if name in members), None)


def _files(path: Path) -> Iterator[tuple[str, Stretch]]:
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = file.seek(0, os.SEEK_END)
            at = 0
            while (member := tar.next()) is not None:
                forget_members(tar)
                here = member.isreg() and not member.issparse()
                # A size may be anything, negative as well.
                if tar.offset <= at or (here and member.offset_data + member.size > end):
                    raise tarfile.ReadError(f"a member of {member.size} bytes at byte {at} of {end}")
                at = tar.offset
                if here:
                    yield member.name, Stretch(str(path), member.offset_data, member.size)
            file.seek(at)
            if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a header that is none for the end
                raise tarfile.ReadError(f"no header at byte {at}")
    except OSError:
        raise
    except Exception as error:  # hostile headers make it raise a dozen kinds
        raise OSError(str(error) or type(error).__name__) from error
