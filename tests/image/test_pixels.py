"""Every kind of picture becomes 8 bits by rule, or says in one line why not: never black, never cut."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from encoders.image import ops

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey(array):
    return np.repeat(array[None], 3, 0)


def colour(array):
    return array.transpose(2, 0, 1)


def tiff(array, photometric, extra=None, order="<", formats=1, declared=True):
    """An uncompressed TIFF of any number of bands, interleaved."""
    height, width, bands = array.shape
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    bits = 8 * array.itemsize
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * bands), (259, 3, [1]),
               (262, 3, [photometric]), (273, 4, [8]), (277, 3, [bands]), (278, 4, [height]),
               (279, 4, [len(data)])]  # fmt: skip
    if extra is not None:
        entries.append((338, 3, extra))
    entries.append((339, 3, [formats] * bands))
    start = 8 + len(data) + len(data) % 2
    after = start + 2 + 12 * len(entries) + 4
    table, beyond = struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in entries:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            place = struct.pack(order + "I", after + len(beyond))
            beyond += packed + b"\0" * (len(packed) % 2)
            packed = place
        table += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "I", start)
    return head + data + b"\0" * (len(data) % 2) + table + b"\0" * 4 + beyond


def tiff_of_12_bits(array):
    """A TIFF of one band that packs two values into three bytes; ``array`` is of an even width."""
    first, second = array[:, ::2], array[:, 1::2]
    packed = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    data = np.stack(packed, -1).reshape(len(array), -1).astype(np.uint8)
    raw = bytearray(tiff(data[..., None], 1))
    table = struct.unpack("<I", raw[4:8])[0] + 2
    for entry, value in ((0, array.shape[1]), (2, 12)):  # width and bits
        place = table + 12 * entry + 8
        raw[place : place + 2] = struct.pack("<H", value)
    return bytes(raw)


def deep_png(array):
    """A PNG of 16 bits per channel, RGB or RGBA."""
    height, width, bands = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def webp(*frames):
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def with_comment(png, text):
    """A PNG with a compressed comment after its header."""
    name, data = b"zTXt", b"Comment\0\0" + zlib.compress(text)
    return (
        png[:33]
        + struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        + png[33:]
    )


def sized(png, width, height):
    """A PNG whose header claims another size."""
    return png[:16] + struct.pack(">II", width, height) + png[24:]


def by_pil(image):
    return colour(np.asarray(image.convert("RGB")))


def layered(*bands):
    return np.stack(bands, -1)


SHAPE = np.zeros((6, 9), np.uint8)
SHAPE[2:4, 3:7] = 255
DEEP = RNG.integers(0, 65536, (6, 9, 4), dtype=np.uint16)
HIGH = (SIXTEEN >> 8).astype(np.uint8)
CMYK, YCBCR = (Image.fromarray(COLOUR).convert(mode) for mode in ("CMYK", "YCbCr"))
CMYK_JPEG = encode(CMYK, "JPEG")
PALETTE = Image.fromarray(COLOUR).quantize(16)

RIGHT = {
    # arrays
    "uint8 [H, W]": (GREY, grey(GREY)),
    "uint8 [H, W, 1]": (GREY[..., None], grey(GREY)),
    "uint8 [1, H, W]": (GREY[None], grey(GREY)),
    "uint8 [H, W, 3]": (COLOUR, colour(COLOUR)),
    "uint8 [3, H, W]": (colour(COLOUR), colour(COLOUR)),
    "uint8 [H, W, 2]": (layered(GREY, ALPHA), grey(GREY)),
    "uint8 [H, W, 4]": (np.dstack([COLOUR, ALPHA]), colour(COLOUR)),
    "bool": (GREY > 127, grey(np.where(GREY > 127, 255, 0).astype(np.uint8))),
    "uint16": (SIXTEEN, grey(HIGH)),
    "uint16, big-endian": (SIXTEEN.astype(">u2"), grey(HIGH)),
    "uint16 RGB": (DEEP[..., :3], colour((DEEP[..., :3] >> 8).astype(np.uint8))),
    "int16": ((SIXTEEN >> 1).astype(np.int16), grey(HIGH)),
    "uint32": (SIXTEEN.astype(np.uint32) << 16, grey(HIGH)),
    "int32": (SIXTEEN.astype(np.int32) << 15, grey(HIGH)),
    "zeros of uint16": (np.zeros((6, 9), np.uint16), np.zeros((3, 6, 9), np.uint8)),
    **{
        f"{kind.__name__} in [0, 1]": ((GREY / 255).astype(kind), grey(GREY))
        for kind in (np.float16, np.float32, np.float64)
    },
    "float RGB in [0, 1]": (COLOUR / 255, colour(COLOUR)),
    "float [3, H, W] in [0, 1]": (colour(COLOUR) / 255, colour(COLOUR)),
    "not contiguous": (COLOUR[:, ::-1], colour(COLOUR[:, ::-1])),
    # files
    "PNG 1": (encode(Image.fromarray(GREY).convert("1")), by_pil(Image.fromarray(GREY).convert("1"))),
    "PNG L": (encode(Image.fromarray(GREY)), grey(GREY)),
    "PNG LA": (encode(Image.fromarray(layered(GREY, ALPHA))), grey(GREY)),
    "PNG RGBA": (encode(Image.fromarray(np.dstack([COLOUR, ALPHA]))), colour(COLOUR)),
    "PNG P": (encode(PALETTE), by_pil(PALETTE)),
    "PNG P, transparent": (encode(PALETTE, transparency=bytes(range(0, 256, 16))), by_pil(PALETTE)),
    "PNG I;16": (encode(Image.fromarray(SIXTEEN)), grey(HIGH)),
    "PNG RGB of 16 bits": (deep_png(DEEP[..., :3]), colour((DEEP[..., :3] >> 8).astype(np.uint8))),
    "PNG RGBA of 16 bits": (deep_png(DEEP), colour((DEEP[..., :3] >> 8).astype(np.uint8))),
    "PNG LA of 16 bits": (deep_png(DEEP[..., :2]), grey((DEEP[..., 0] >> 8).astype(np.uint8))),
    "PGM of 16 bits": (
        b"P5 9 6 65535\n" + SIXTEEN.astype(">u2").tobytes(), grey(HIGH),
    ),
    "PGM of 12 bits": (
        b"P5 9 6 4095\n" + (SIXTEEN >> 4).astype(">u2").tobytes(),
        grey((((SIXTEEN >> 4) / 4095 * 65535).round().astype(np.uint16) // 256).astype(np.uint8)),
    ),
    "TIFF I;16": (tiff(SIXTEEN[..., None], 1), grey(HIGH)),
    "TIFF I;16B": (tiff(SIXTEEN[..., None], 1, order=">"), grey(HIGH)),
    "TIFF I;16, 0 is white": (tiff(SIXTEEN[..., None], 0), grey(255 - HIGH)),
    "TIFF of 12 bits": (tiff_of_12_bits(SIXTEEN[:, :8] >> 4), grey(HIGH[:, :8])),
    "TIFF L, 0 is white": (tiff(GREY[..., None], 0), grey(255 - GREY)),
    "TIFF int16": (
        tiff((SIXTEEN >> 1).astype(np.int16)[..., None], 1, formats=2), grey(HIGH),
    ),
    "TIFF int32": (
        tiff((SIXTEEN.astype(np.int32) << 15)[..., None], 1, formats=2), grey(HIGH),
    ),
    "TIFF F in [0, 1]": (tiff((GREY / 255).astype(np.float32)[..., None], 1, formats=3), grey(GREY)),
    "TIFF RGB of 16 bits": (tiff(DEEP[..., :3], 2), colour((DEEP[..., :3] >> 8).astype(np.uint8))),
    "TIFF RGBA": (tiff(np.dstack([COLOUR, ALPHA]), 2, extra=[2]), colour(COLOUR)),
    "TIFF LA": (tiff(layered(GREY, ALPHA), 1, extra=[2]), grey(GREY)),
    "TIFF CMYK": (encode(CMYK, "TIFF"), by_pil(CMYK)),
    "TIFF YCbCr": (encode(YCBCR, "TIFF"), by_pil(YCBCR)),
    "JPEG CMYK": (CMYK_JPEG, by_pil(Image.open(io.BytesIO(CMYK_JPEG)))),
    "first page": (
        encode(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        grey(GREY),
    ),
    "first frame": (webp(Image.fromarray(GREY), Image.fromarray(255 - GREY)), grey(GREY)),
    # the picture is in the transparency alone
    "black on nothing": (encode(Image.fromarray(np.dstack([SHAPE * 0] * 3 + [SHAPE]))), grey(255 - SHAPE)),
    "white on nothing": (encode(Image.fromarray(np.dstack([SHAPE * 0 + 255] * 3 + [SHAPE]))), grey(SHAPE)),
    "grey and alpha": (encode(Image.fromarray(layered(SHAPE * 0, SHAPE))), grey(255 - SHAPE)),
    "flat and opaque": (encode(Image.new("RGBA", (9, 6), (7, 7, 7, 255))), grey(SHAPE * 0 + 7)),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), RIGHT.values(), ids=RIGHT)
def test_values_by_rule(raw, expected):
    found = ops.decode_rgb(raw)
    assert found.dtype == torch.uint8
    assert found.numpy().tolist() == expected.tolist()
    luma = np.asarray(Image.fromarray(np.ascontiguousarray(expected.transpose(1, 2, 0))).convert("L"))
    assert np.abs(ops.decode_grey(raw)[0].numpy().astype(int) - luma).max() <= 1


def test_lab_is_converted():
    raw = encode(Image.new("LAB", (9, 6), (54 * 255 // 100, 128 + 80, 128 + 67)), "TIFF")
    red = ops.decode_rgb(raw).float().mean((1, 2))
    assert red[0] > 220
    assert (red[1:] < 60).all()


PHOTO = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
TURNED = Image.Exif()
TURNED[274] = 6
USUAL = {
    "EXIF": encode(PHOTO, "JPEG", exif=TURNED),  # not turned, as in the reference code
    "ICC": encode(PHOTO, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    "progressive": encode(PHOTO, "JPEG", progressive=True),
    "several pictures": encode(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
    "animated": encode(PHOTO, "GIF", save_all=True, append_images=[PHOTO.transpose(0)]),
    "animated PNG": encode(PHOTO, save_all=True, append_images=[PHOTO.transpose(0)]),
    "4 bits": encode(PHOTO.quantize(16), bits=4),
    "transparent colour": encode(PHOTO, transparency=(1, 2, 3)),
    "transparent grey": encode(PHOTO.convert("L"), transparency=7),
    **{f"{kind}": encode(PHOTO, kind) for kind in ("GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")},
    **{f"grey {kind}": encode(PHOTO.convert("L"), kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "PPM")},
    **{f"1 {kind}": encode(PHOTO.convert("1"), kind) for kind in ("BMP", "TIFF", "PPM")},
    **{f"P {kind}": encode(PHOTO.convert("P"), kind) for kind in ("BMP", "TIFF", "GIF")},
    **{f"RGBA {kind}": encode(PHOTO.convert("RGBA"), kind) for kind in ("BMP", "TIFF", "WEBP", "JPEG2000")},
    **{f"TIFF {how}": encode(PHOTO, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "packbits")},
}


@pytest.mark.parametrize("raw", USUAL.values(), ids=USUAL)
def test_usual_files_are_as_pil_has_them(raw):
    for decode, mode in ((ops.decode_rgb, "RGB"), (ops.decode_grey, "L")):
        expected = torch.from_numpy(np.array(Image.open(io.BytesIO(raw)).convert(mode)))
        assert torch.equal(decode(raw), expected.permute(2, 0, 1) if expected.ndim == 3 else expected[None])


THIRTEEN = RNG.integers(0, 65536, (6, 9, 13), dtype=np.uint16)
REFUSED = {
    "float in [0, 255]": (GREY.astype(np.float32), r"float32 from 4 to 248; floats must be in \[0, 1\]"),
    "float below 0": (GREY / 255 - 0.5, r"must be in \[0, 1\]"),
    "NaN": (np.full((6, 9), np.nan), r"must be in \[0, 1\]"),
    "infinity": (np.full((6, 9), np.inf), r"must be in \[0, 1\]"),
    "int64 of 8 bits": (GREY.astype(np.int64), "1 grey level"),
    "int32 of 8 bits": (GREY.astype(np.int32), "1 grey level"),
    "12 bits in 16": (SIXTEEN >> 4, "uint16, largest 3,825: 15 grey level"),
    "10 bits in 16": (SIXTEEN >> 6, "4 grey level"),
    "negative": (-SIXTEEN.astype(np.int32) - 1, "negative"),
    "int8": (GREY.astype(np.int8), "int8"),
    "complex": (GREY.astype(np.complex64), "complex64"),
    "text": (np.array([["a"]]), "<U1"),
    "5 bands": (np.zeros((6, 9, 5), np.uint8), r"5 bands in an array \[6, 9, 5\]"),
    "13 bands first": (THIRTEEN.transpose(2, 0, 1), "9 bands|bands"),
    "[W]": (GREY[0], "is not"),
    "[N, H, W, C]": (COLOUR[None], "is not"),
    "no pixels": (np.zeros((0, 9), np.uint8), "is not|one side"),
    "TIFF of 13 bands": (
        tiff(THIRTEEN, 1, extra=[0] * 12),
        r"TIFF, 1,\d+ bytes\): 13 band\(s\) of 16-bit unsigned",
    ),
    "TIFF of 4 bands": (tiff(np.dstack([COLOUR, ALPHA]), 2, extra=[0]), "4 bands, of which 1"),
    "TIFF of 4 bands, undeclared": (tiff(np.dstack([COLOUR, ALPHA]), 2), "4 bands"),
    "TIFF of 5 bands": (tiff(np.dstack([COLOUR, ALPHA, GREY]), 2, extra=[2, 0]), "5 band"),
    "TIFF of 2 bands": (tiff(layered(GREY, ALPHA), 1, extra=[0]), "2 band"),
    "TIFF of 3 floats": (tiff((COLOUR / 255).astype(np.float32), 2, formats=3), "32-bit floats"),
    "TIFF of doubles": (tiff((GREY / 255)[..., None] * 2, 1, formats=3), "64-bit floats|floats must be"),
    "TIFF int8": (tiff(GREY.astype(np.int8)[..., None], 1, formats=2), "8-bit signed"),
    "TIFF F in [0, 255]": (tiff(GREY.astype(np.float32)[..., None], 1, formats=3), "floats must be"),
    "TIFF int32 of 8 bits": (tiff(GREY.astype(np.int32)[..., None], 1, formats=2), "1 grey level"),
    "TIFF of 12 bits in 16": (tiff((SIXTEEN >> 4)[..., None], 1), "15 grey level"),
    "TIFF RGB of 12 bits in 16": (tiff(DEEP[..., :3] >> 4, 2), "1[56] grey level"),
    "PNG RGB of 12 bits in 16": (deep_png(DEEP[..., :3] >> 4), "1[56] grey level"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), r"HEIF, 112 bytes"),
    "PSD": (b"8BPS" + bytes(100), "Photoshop"),
    "PDF": (b"%PDF-1.7" + bytes(100), "PDF"),
    "WAV": (b"RIFF\0\0\0\0WAVE" + bytes(100), "WAV"),
    "DICOM": (bytes(128) + b"DICM" + bytes(100), "DICOM"),
    "npy": (b"\x93NUMPY" + bytes(100), "NumPy"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_rule_is_refused_as_unsupported(raw, message):
    for decode in (ops.decode_rgb, ops.decode_grey):
        with pytest.raises(ValueError, match=message) as caught:
            decode(raw)
        text = str(caught.value)
        assert text.startswith("unsupported")
        assert len(text.splitlines()) == 1
        assert "0x" not in text
        assert "object at" not in text


PNG = encode(Image.fromarray(COLOUR))
DAMAGED = {
    "empty": b"",
    "zeros": bytes(500),
    "text": b"not a picture",
    "head of a PNG": PNG[:20],
    "cut PNG": PNG[:-40],
    "cut JPEG": encode(Image.fromarray(COLOUR), "JPEG")[:-40],
    "cut TIFF": tiff(SIXTEEN[..., None], 1)[:60],
    "cut table of a TIFF": tiff(SIXTEEN[..., None], 1)[:150],
    "TIFF of no table": b"II*\0" + struct.pack("<I", 10**6),
    "cut GIF": encode(Image.fromarray(COLOUR), "GIF")[:150],
    "cut WebP": encode(Image.fromarray(COLOUR), "WEBP")[:40],
    "bomb in a comment": with_comment(PNG, bytes(2**24)),
    "40,000 x 40,000": sized(PNG, 40_000, 40_000),
}


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named_as_damage(raw):
    with pytest.raises(ValueError, match=r"^cannot decode the picture: [^\n]+$") as caught:
        ops.decode_rgb(raw)
    assert "object at" not in str(caught.value)
