"""Files whose header counts their samples wrong or not at all: what libsndfile is given in their place.

Encoders that write to a pipe cannot go back to the header: WAV then says 0 bytes, FLAC 0 samples and CAF -1
bytes. MP3 counts in a tag that need not be there, or that was copied. libsndfile believes them and cuts the
sound or fails. `counted` reads enough of a file to find out, and gives a corrected copy in memory.

A header that promises more than an incomplete file has is not corrected: the file is damaged.
"""

import io
import os
import struct
from typing import BinaryIO, NamedTuple

_LARGEST, _CHUNK = 2**30, 2**20  # bytes of a file that is corrected, and that are read at once


def counted(file: BinaryIO) -> BinaryIO:
    """Returns the file itself if its header counts right or has another format, otherwise a corrected copy.

    Raises:
        ValueError: if a file that has to be corrected is too large for that.
    """
    file.seek(0)
    head = file.read(42)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _wav(file)
    if head[:4] == b"fLaC" and head[4] & 0x7F == 0 and len(head) == 42:
        return _flac(file, head)
    if head[:4] == b"caff":
        return _caf(file)
    if head[:3] == b"ID3" or (len(head) > 3 and _frame(head[:4])):
        return _mp3(file, head)
    return file


def _patched(file: BinaryIO, patches: dict[int, bytes], insert: tuple[int, bytes] | None = None) -> BinaryIO:
    size = file.seek(0, os.SEEK_END)
    if size > _LARGEST:
        raise ValueError(f"the header counts wrong, and {size:,} bytes are too many to correct it in memory")
    file.seek(0)
    content = bytearray(file.read())
    for place, new in patches.items():
        content[place : place + len(new)] = new
    if insert is not None:
        content[insert[0] : insert[0]] = insert[1]
    return io.BytesIO(bytes(content))


def _wav(file: BinaryIO) -> BinaryIO:
    end, place = file.seek(0, os.SEEK_END), 12
    for _ in range(1000):  # chunks
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return file
        size = struct.unpack("<I", header[4:])[0]
        if header[:4] == b"data":
            if size or place + 8 == end or _are_chunks(file, place + 8, end):
                return file
            return _patched(file, {place + 4: b"\xff\xff\xff\xff"})
        place += 8 + size + size % 2
    return file


def _are_chunks(file: BinaryIO, place: int, end: int) -> bool:
    """Returns whether what follows is whole chunks rather than samples."""
    while place < end:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8 or not header[:4].isascii() or not header[:4].decode().isprintable():
            return False
        size = struct.unpack("<I", header[4:])[0]
        place += 8 + size + size % 2
    return place <= end + 1


def _caf(file: BinaryIO) -> BinaryIO:
    end, place = file.seek(0, os.SEEK_END), 8
    for _ in range(1000):
        file.seek(place)
        header = file.read(12)
        if len(header) < 12:
            return file
        size = struct.unpack(">q", header[4:])[0]
        if header[:4] == b"data" and size == -1:  # to the end of the file
            return _patched(file, {place + 4: struct.pack(">q", end - place - 12)})
        if size < 0:
            return file
        place += 12 + size
    return file


def _flac(file: BinaryIO, head: bytes) -> BinaryIO:
    told = int.from_bytes(head[21:26], "big") & (2**36 - 1)
    longest = int.from_bytes(head[15:18], "big") or 2**16
    end = file.seek(0, os.SEEK_END)
    file.seek(max(42, end - longest - 64))
    tail = file.read()
    last = len(tail)
    while (last := tail.rfind(b"\xff", 0, last)) >= 0:
        found = _flac_frame(tail[last : last + 16], int.from_bytes(head[8:10], "big"))
        # Most false ones have a place that is not the told end; the slow checksum decides on the others.
        if found is not None:
            if found == told or _crc(tail[last:], 16, 0x8005):
                return file
            first = bytes([head[21] & 0xF0 | found >> 32]) + (found & 0xFFFFFFFF).to_bytes(4, "big")
            return _patched(file, {21: first})
    return file


def _flac_frame(header: bytes, block: int) -> int | None:
    """Returns the number of samples up to the end of a frame, or ``None`` if it is no frame's header."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8 or header[2] >> 4 == 0 or header[2] & 15 == 15:
        return None
    ones = next((k for k in range(8) if not header[4] >> (7 - k) & 1), 8)
    if ones in (1, 8) or header[3] >> 4 > 10:
        return None
    number, place = header[4] & (0x7F >> ones), 4 + max(1, ones)
    for byte in header[5:place]:
        number = number << 6 | byte & 0x3F
    code = header[2] >> 4
    extra = {6: 1, 7: 2}.get(code, 0)
    size = int.from_bytes(header[place : place + extra], "big") + 1
    place += extra + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if len(header) <= place or _crc(header[: place + 1], 8, 0x07):
        return None
    samples = size if extra else 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    return (number if header[1] & 1 else number * block) + samples


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """Returns the checksum of data that end in their own, which is 0 if they are whole."""
    table, top, mask = [], 1 << (bits - 1), (1 << bits) - 1
    for value in range(256):
        rest = value << (bits - 8)
        for _ in range(8):
            rest = (rest << 1 ^ (polynomial if rest & top else 0)) & mask
        table.append(rest)
    rest = 0
    for byte in data:
        rest = (rest << 8 & mask) ^ table[rest >> (bits - 8) ^ byte]
    return rest


class _Mp3Frame(NamedTuple):
    size: int  # bytes
    tag: int  # the offset of a Xing tag, after the side information
    layout: int  # bits that all frames of a file share


_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
_BIT_RATES = {  # by layer (3, 2, 1) and whether the version is 1, in kbit/s
    (1, True): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, False): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _frame(header: bytes) -> _Mp3Frame | None:
    """Returns the frame of MPEG layer III that begins with these 4 bytes, or ``None``."""
    word = int.from_bytes(header, "big")
    version, layer, bit_rate, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return None
    kilobits = _BIT_RATES[layer, version == 3][bit_rate - 1]
    size = (144_000 if version == 3 else 72_000) * kilobits // _RATES[version][rate] + (word >> 9 & 1)
    mono = word >> 6 & 3 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Mp3Frame(size, 4 + side, word & 0xFFFE0C00)


def _mp3(file: BinaryIO, head: bytes) -> BinaryIO:
    start = 0
    if head[:3] == b"ID3":  # four times 7 bits, without the header
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
    file.seek(start)
    header = file.read(200)
    first = _frame(header[:4])
    if first is None:
        return file
    tag = header[first.tag : first.tag + 16]
    tagged = tag[:4] in (b"Xing", b"Info")
    flags, told, length = struct.unpack(">4x3I", tag) if tagged and len(tag) == 16 else (0, 0, 0)
    count, end, whole = _mp3_count(file, start + (first.size if tagged else 0), first.layout)
    if not count or not whole or (flags & 3 == 3 and end - start < length):
        return file
    if tagged:
        if flags & 1 and told == count:
            return file
        place = start + first.tag + 4
        return _patched(file, {place: struct.pack(">2I", flags | 1 if flags & 1 else 1, count)})
    return _patched(file, {}, (start, _xing(header[:4], count)))


def _xing(header: bytes, count: int) -> bytes:
    """Returns a silent first frame, like the file's own, whose tag counts the others."""
    frame_header = bytes([header[0], header[1] | 1, 0x90 | header[2] & 0x0C, header[3]])
    frame = _frame(frame_header)
    assert frame is not None
    tag = b"\0" * (frame.tag - 4) + b"Xing" + struct.pack(">2I", 1, count)
    return (frame_header + tag).ljust(frame.size, b"\0")


def _mp3_count(file: BinaryIO, place: int, layout: int) -> tuple[int, int, bool]:
    """Returns the number of frames from ``place`` on, where they end, and whether the last one is whole."""
    size = file.seek(0, os.SEEK_END)
    count, begin, chunk = 0, 0, b""
    sizes: dict[bytes, int] = {}  # of frames by their headers, 0 for others: there are few different ones
    while place < size:
        if place + 4 > begin + len(chunk):
            file.seek(place)
            begin, chunk = place, file.read(_CHUNK)
        header = chunk[place - begin : place - begin + 4]
        length = sizes.get(header)
        if length is None:
            frame = _frame(header)
            length = sizes[header] = frame.size if frame and frame.layout == layout else 0
        if not length:
            break
        if place + length > size:
            return count, place, False
        count, place = count + 1, place + length
    file.seek(place)
    after = file.read(8)
    tags = (b"TAG", b"APETAGEX", b"LYRICSBE", b"ID3", b"3DI")
    return count, place, not after.strip(b"\0") or after.startswith(tags)
