"""What a file is, by its first bytes: for messages about files that a decoder does not take."""

from typing import NamedTuple


class _Kind(NamedTuple):
    """A kind of file: its name, and bytes at an offset that tell it."""

    name: str
    signature: bytes
    offset: int = 0


# The first that fits counts.
_KINDS = (
    _Kind("JPEG", b"\xff\xd8\xff"),
    _Kind("PNG", b"\x89PNG\r\n\x1a\n"),
    _Kind("GIF", b"GIF8"),
    _Kind("WebP", b"WEBP", 8),
    _Kind("TIFF", b"II*\0"),
    _Kind("TIFF", b"MM\0*"),
    _Kind("BigTIFF", b"II+\0"),
    _Kind("BigTIFF", b"MM\0+"),
    _Kind("JPEG 2000", b"\0\0\0\x0cjP  "),
    _Kind("JPEG 2000", b"\xff\x4f\xff\x51"),
    _Kind("JPEG XL", b"\0\0\0\x0cJXL "),
    _Kind("JPEG XL", b"\xff\x0a"),
    *(_Kind("HEIF", brand, 8) for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    *(_Kind("AVIF", brand, 8) for brand in (b"avif", b"avis")),
    _Kind("M4A (AAC)", b"M4A ", 8),
    _Kind("QuickTime or MP4", b"ftyp", 4),
    _Kind("Photoshop (PSD)", b"8BPS"),
    _Kind("OpenEXR", b"v/1\x01"),
    _Kind("Radiance HDR", b"#?RADIANCE"),
    _Kind("DICOM", b"DICM", 128),
    _Kind("FITS", b"SIMPLE  ="),
    _Kind("NumPy (npy)", b"\x93NUMPY"),
    _Kind("HDF5", b"\x89HDF\r\n\x1a\n"),
    _Kind("MATLAB", b"MATLAB 5.0"),
    _Kind("WAV", b"WAVE", 8),
    _Kind("AIFF", b"AIFF", 8),
    _Kind("AIFF", b"AIFC", 8),
    _Kind("AVI", b"AVI ", 8),
    _Kind("FLAC", b"fLaC"),
    _Kind("Ogg", b"OggS"),
    _Kind("AU", b".snd"),
    _Kind("CAF", b"caff"),
    _Kind("MP3", b"ID3"),
    _Kind("AAC (ADTS)", b"\xff\xf1"),
    _Kind("AAC (ADTS)", b"\xff\xf9"),
    *(_Kind("MP3", bytes([0xFF, byte])) for byte in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)),
    _Kind("Matroska or WebM", b"\x1aE\xdf\xa3"),
    _Kind("WMA or WMV", b"0&\xb2u\x8ef\xcf\x11"),
    _Kind("AMR", b"#!AMR"),
    _Kind("MIDI", b"MThd"),
    _Kind("NIST SPHERE", b"NIST_1A"),
    _Kind("PDF", b"%PDF"),
    _Kind("PostScript", b"%!PS"),
    _Kind("PostScript", b"\xc5\xd0\xd3\xc6"),
    _Kind("SVG", b"<svg"),
    _Kind("XML", b"<?xml"),
    _Kind("HTML", b"<!DOCTYPE"),
    _Kind("HTML", b"<html"),
    _Kind("Windows icon", b"\0\0\x01\0"),
    _Kind("Apple icon", b"icns"),
    _Kind("ZIP", b"PK\x03\x04"),
    _Kind("gzip", b"\x1f\x8b"),
    _Kind("bzip2", b"BZh"),
    _Kind("xz", b"\xfd7zXZ\0"),
    _Kind("Zstandard", b"\x28\xb5\x2f\xfd"),
    _Kind("Parquet", b"PAR1"),
    _Kind("pointer of Git LFS", b"version https://git-lfs"),
    _Kind("BMP", b"BM"),
    *(_Kind("PNM", b"P%d" % digit) for digit in range(1, 8)),
    *(_Kind("PFM", b"P" + letter) for letter in (b"f", b"F")),
)
HEAD = 132  # as many bytes of a file say what it is


def file_kind(head: bytes) -> str | None:
    """The name of the kind of file that begins with ``head``, or ``None`` if it is not known here."""
    return next(
        (
            kind.name
            for kind in _KINDS
            if head[kind.offset : kind.offset + len(kind.signature)] == kind.signature
        ),
        None,
    )


def described(head: bytes, size: int) -> str:
    """A file of ``size`` bytes that begins with ``head``, in words: ``a file (PNG, 1,234 bytes)``."""
    if not size:
        return "an empty file"
    kind = file_kind(head)
    if kind is None and not any(head):
        kind = "only zeros at the beginning"
    return f"a file ({kind or f'begins with {head[:12]!r}'}, {size:,} bytes)"
