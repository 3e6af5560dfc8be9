"""Opening files of text: compressed or not, in UTF-8 or UTF-16, line by line and with bounds."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bt_multimodal.safe_files import check_regular

LONGEST_CELL = 2**26  # characters of a line or a cell; 256 MB while it is read
# A compressed file may hold this many bytes for each of its own, and these in any case.
MOST_EXPANSION, ALWAYS_EXPANDED = 50, 2**24
ALWAYS_LINES = 10**6  # and these lines, and one for each of its own bytes
SAMPLE = 2**16  # bytes to look at


def _zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


_PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}


def kind(path: str | Path) -> str:
    """The ending that says what a file holds, in lower case: ``.csv`` of ``x.CSV`` and ``x.csv.gz``."""
    stem, ending = os.path.splitext(str(path))
    found = (os.path.splitext(stem)[1] if ending.lower() in _PACKED else ending).lower()
    return ".jsonl" if found == ".ndjson" else found  # two names of one format


def is_kind(path: str | Path, kinds: Sequence[str]) -> bool:
    """Whether a file, compressed or not, is of one of the ``kinds``."""
    return kind(path) in kinds


def plain_stem(path: str | Path) -> str:
    """The name of a file without its folder, its ending and that of its compression."""
    stem, ending = os.path.splitext(os.path.basename(str(path)))
    return os.path.splitext(stem)[0] if ending.lower() in _PACKED else stem


class _Bounded(io.RawIOBase):
    """A file that may not hold more than ``most`` bytes and ``lines`` lines."""

    def __init__(self, file: Any, most: int, lines: int):
        self._file, self._left, self._most = file, most, most
        self._lines_left = self._most_lines = lines

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        self._lines_left -= data.count(b"\n")
        if self._lines_left < 0:
            raise ValueError(f"it unpacks to more than the limit of {self._most_lines:,} lines")
        if self._left < 0:
            raise ValueError(f"it unpacks to more than the limit of {self._most:,} bytes")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_binary(path: Path) -> BinaryIO:
    """A file's bytes, unpacked.

    Raises:
        OSError: it is no regular file or cannot be opened.
    """
    check_regular(path)
    unpack = _PACKED.get(path.suffix.lower())
    if unpack is None:
        return open(path, "rb")
    size = path.stat().st_size
    bounded = _Bounded(unpack(path), max(ALWAYS_EXPANDED, MOST_EXPANSION * size), ALWAYS_LINES + size)
    return io.BufferedReader(bounded, SAMPLE)


def encoding(sample: bytes) -> str:
    """The encoding of a text that begins so: UTF-16 with a mark or with many zeros, or else UTF-8."""
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    pairs = len(sample) // 2
    if pairs >= 2:
        zeros = [sample[start : 2 * pairs : 2].count(0) for start in (0, 1)]
        if max(zeros) > pairs // 2 and min(zeros) == 0:
            return "utf-16-be" if zeros[0] else "utf-16-le"
    return "utf-8-sig"


def lines(file: io.TextIOWrapper, most: int = LONGEST_CELL) -> Iterator[str]:
    """The lines of a file.

    Raises:
        ValueError: a line of more than ``most`` characters.
    """
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise ValueError(f"line {number:,} has more than the limit of {most:,} characters")
        yield line


def beginning(path: Path) -> str:
    """The first `SAMPLE` bytes of a file as text, whatever they are.

    Raises:
        OSError: as `open_binary`.
    """
    with open_binary(path) as file:
        sample = file.read(SAMPLE)
    text = sample.decode(encoding(sample), errors="replace")
    return text if len(sample) < SAMPLE else text[:-2]  # the end may be cut within a letter


def open_text(path: Path, newline: str | None = "", errors: str = "strict") -> io.TextIOWrapper:
    """A file's text, unpacked and without a byte order mark; ``newline`` and ``errors`` as in `open`.

    Raises:
        OSError: as `open_binary`.
    """
    with open_binary(path) as file:
        sample = file.read(SAMPLE)
    return io.TextIOWrapper(open_binary(path), encoding(sample), errors, newline)
