"""How the values of a picture become 8 bits, grey or red, green and blue: one rule for files and arrays.

* Integers are scaled by their type's range: 16 bits lose the lower 8. What would then have fewer than 16
  levels (such as 12 bits in 16, or 8 bits in 32) is refused, because its true range is not known.
* Floats are in [0, 1]; other ones are refused.
* Palettes are looked up; CMYK, YCbCr, HSV and Lab are converted.
* Transparency is dropped, as torchvision does. Where the transparency alone is the picture, because all
  colours are equal, the picture is laid on white, or on black if it is bright.
* Other bands beyond three are refused.
* Of several pages or frames the first counts. The EXIF orientation and ICC profiles are ignored, as in the
  reference code.
"""

from typing import Any

import numpy as np
from PIL import Image

_LEAST_LEVELS = 16
# Colour bands by TIFF's PhotometricInterpretation; others have 3.
_TIFF_BANDS = {0: 1, 1: 1, 3: 1, 4: 1, 5: 4}
_TIFF_FORMATS = {
    1: "unsigned integers",
    2: "signed integers",
    3: "floats",
    5: "complex integers",
    6: "complex",
}


def array_to_pil(array: np.ndarray, mode: str) -> Image.Image:
    """Returns an array as a PIL image of 8 bits.

    Args:
        array: ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` of integers, bools or floats, with ``C`` of 1
            (grey), 2 (grey and transparency), 3 (RGB) or 4 (RGB and transparency).
        mode: ``"RGB"`` or ``"L"``.

    Raises:
        ValueError: if the array is no such picture.
    """
    shape = list(array.shape)
    if array.ndim == 3 and array.shape[2] > 4 and array.shape[0] <= 4:
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"unsupported picture: an array {shape} is not [H, W], [H, W, C] or [C, H, W]")
    if array.ndim == 3 and array.shape[2] > 4:
        raise ValueError(
            f"unsupported picture: {min(shape)} bands in an array {shape}; choose 1 or 3 of them"
        )
    scaled = _eight_bits(array)
    if scaled.ndim == 3 and scaled.shape[2] == 1:
        scaled = scaled[..., 0]
    return _converted(Image.fromarray(np.ascontiguousarray(scaled)), mode)


def file_to_pil(image: Image.Image, mode: str) -> Image.Image:
    """Returns the first frame of a picture that ``Image.open`` opened as an image of 8 bits.

    Args:
        image: the picture; it is decoded here.
        mode: ``"RGB"`` or ``"L"``.

    Raises:
        ValueError: if its values or bands are none that have a rule.
    """
    bits, inverted, signed = _tiff(image) if image.format == "TIFF" else (8, False, False)
    if image.format == "PNG":
        bits = _png_depth(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        values = np.asarray(image)
        if image.mode == "I":
            values = _unwrapped(values, image, bits, signed)
        elif 8 < bits < 16:  # a TIFF says how many bits it uses
            values = values.astype(np.uint16) << (16 - bits)
        scaled = _eight_bits(values)
        return Image.fromarray(255 - scaled if inverted else scaled).convert(mode)
    converted = _converted(image, mode)
    if bits == 16:  # PIL kept the upper 8 of 16 bits
        _check_levels(_largest(converted), "16 bits")
    return converted


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image.convert(mode)
    if image.mode == "LAB":
        image = _lab_to_rgb(image)
    elif image.mode in ("RGBa", "La"):  # colours multiplied by the transparency
        image = image.convert(image.mode.upper())
    elif image.mode == "RGBX":
        raise ValueError("unsupported picture: it has a fourth band that is not transparency")
    converted = image.convert(mode)
    if image.has_transparency_data and _flat(converted):
        rgba = image.convert("RGBA")
        if not _flat(rgba.getchannel("A")):
            ground = 0 if _largest(converted.convert("L")) > 127 else 255
            below = Image.new("RGBA", rgba.size, (ground, ground, ground, 255))
            return Image.alpha_composite(below, rgba).convert(mode)
    return converted


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    try:
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted: Any = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    except ImportError as error:
        raise ValueError("unsupported picture: this build of Pillow cannot convert Lab colours") from error
    return converted


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """Scales integers by their type's range and floats from [0, 1] to uint8."""
    kind = array.dtype
    if kind == np.uint8:
        return array
    if kind == np.bool_:
        return array.astype(np.uint8) * 255
    if kind.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN as well
            raise ValueError(
                f"unsupported picture: {kind} from {low:.6g} to {high:.6g}; floats must be in [0, 1]"
            )
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if kind.kind not in "iu" or kind.itemsize < 2:
        raise ValueError(f"unsupported picture: an array of {kind}; it must hold uint8, or floats in [0, 1]")
    if array.min() < 0:
        raise ValueError(f"unsupported picture: {kind} with the negative value {int(array.min())}")
    bits = 8 * kind.itemsize - (kind.kind == "i")
    scaled = (array >> (bits - 8)).astype(np.uint8)
    if array.any():
        _check_levels(int(scaled.max()), f"{kind}, largest {int(array.max()):,}")
    return scaled


def _check_levels(largest: int, what: str) -> None:
    if largest < _LEAST_LEVELS:
        raise ValueError(
            f"unsupported picture: {what}: {largest + 1} grey level(s) of 256 would be left, so its "
            "values do not span their type's range; store them as 8 bits, or scaled to the whole range"
        )


def _unwrapped(values: np.ndarray, image: Image.Image, bits: int, signed: bool) -> np.ndarray:
    """Returns the integers of PIL's mode I, which holds any, with the type that they have in the file."""
    if image.format != "TIFF":  # PNG, PGM and JPEG 2000 have up to 16 bits
        return values.clip(0, 65535).astype(np.uint16)
    if bits <= 16:
        return values.astype(np.int16 if signed else np.uint16)
    return values if signed else values.view(np.uint32)


def _tiff(image: Any) -> tuple[int, bool, bool]:
    """Returns the bits of a TIFF's values, whether 0 is white, and whether they are signed.

    Raises:
        ValueError: if it has bands that are neither colour nor transparency, or signed values of 8 bits.
    """
    tags = getattr(image, "tag_v2", {})
    photometric = tags.get(262, 1)
    bands, extra = tags.get(277, 1), tags.get(338, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    beyond = bands - _TIFF_BANDS.get(photometric, 3)
    if beyond > 1 or (beyond == 1 and extra[:1] not in ((1,), (2,))):
        raise ValueError(
            f"unsupported picture: TIFF of {bands} bands, of which {beyond} are neither colour nor "
            "transparency; choose 1 or 3 of them"
        )
    bits, signed = max(tags.get(258, (1,))), 2 in tags.get(339, (1,))
    if signed and bits <= 8:  # PIL takes them for unsigned ones
        raise ValueError(f"unsupported picture: {tiff_layout(tags)}")
    return bits, photometric == 0, signed


def tiff_layout(tags: Any) -> str:
    """Returns a TIFF's bands and values in words, from its tags."""
    bits, kinds = tags.get(258, (1,)), tags.get(339, (1,))
    kind = _TIFF_FORMATS.get(kinds[0], "values of an unknown kind")
    return (
        f"{tags.get(277, 1)} band(s) of {bits[0]}-bit {kind}, photometric interpretation {tags.get(262, 1)}"
    )


def _png_depth(image: Any) -> int:
    position = image.fp.tell()
    image.fp.seek(24)
    depth = image.fp.read(1)
    image.fp.seek(position)
    return depth[0]


def _flat(image: Image.Image) -> bool:
    return all(low == high for low, high in _ranges(image))


def _largest(image: Image.Image) -> int:
    return max(high for _, high in _ranges(image))


def _ranges(image: Image.Image) -> list[tuple[int, int]]:
    """Returns the smallest and largest value of each band of 8 bits."""
    return [(int(low), int(high)) for low, high in (band.getextrema() for band in image.split())]  # type: ignore
