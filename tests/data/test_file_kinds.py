"""What a file is, in words, by its first bytes."""

import pytest

from bt_multimodal.data.file_kinds import HEAD, described, file_kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"), (b"RIFF\x24\0\0\0WAVEfmt ", "WAV"), (b"P5 9 6 255\n", "PNM"),
        (b"\0\0\0\x20ftypavif", "AVIF"), (b"\0\0\0\x20ftypmif1", "HEIF"),
        (b"\0\0\0\x20ftypisom", "QuickTime or MP4"), (b"\xff\xfb\x90", "MP3"),
        (bytes(128) + b"DICM", "DICOM"), (b"PK\x03\x04", "ZIP"), (b"ID3\x04", "MP3"),
        (b"a text", None), (b"", None), (bytes(HEAD), None),
    ],
)  # fmt: skip
def test_the_kind_of_a_file(head, kind):
    assert file_kind(head) == kind


@pytest.mark.parametrize(
    ("head", "size", "words"),
    [
        (b"", 0, "an empty file"),
        (b"\x89PNG\r\n\x1a\n", 1234, "a file (PNG, 1,234 bytes)"),
        (bytes(20), 20, "a file (only zeros at the beginning, 20 bytes)"),
        (b"a text\nof two lines", 19, r"a file (begins with b'a text\nof tw', 19 bytes)"),
    ],
)
def test_a_description_is_one_line(head, size, words):
    assert described(head, size) == words
