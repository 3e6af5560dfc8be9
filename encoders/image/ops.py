"""Operations on batches of images, with parameters per sample.

Images are float ``[B, 3, H, W]`` in [0, 1] and parameters ``[B]`` unless stated otherwise. Every function is
pure: the same data and parameters give the same pixels on any device.

Legend: ``B`` samples, ``H, W`` size of the input, ``S`` size of the output.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from einops import rearrange
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from bt_multimodal.data.file_kinds import HEAD, described, file_kind
from encoders.image.pixels import array_to_pil, file_to_pil, tiff_layout

# Larger pictures are not decoded: at the limit RGB takes 0.4 GB, twice that while decoding. Narrow pictures
# would become as large when their shorter side is enlarged to a view's.
MOST_PIXELS, MOST_ASPECT = 2**27, 1000

# By default PIL tries every format it knows, and runs Ghostscript for some.
_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
if find_spec("PIL.AvifImagePlugin"):  # since Pillow 11.3
    _FORMATS += ("AVIF",)
_READ = (
    "JPEG",
    "PNG",
    "WebP",
    "BMP",
    "GIF",
    "TIFF",
    "PNM",
    "PFM",
    "JPEG 2000",
    "AVIF",
)  # as `file_kind` names them

# Luma weights of ITU-R BT.601, as in PIL (torchvision's tensor path uses 0.2989 for red).
LUMA = (0.299, 0.587, 0.114)


def _kernel(x: Tensor, name: str) -> Tensor:
    """Evaluates PIL's interpolation kernels (bicubic with a = -0.5)."""
    x = x.abs()
    if name == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x.square() + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resampling_weights(start: Tensor, length: Tensor, n_in: int, n_out: int, kernel: str) -> Tensor:
    """Returns weights ``[B, n_out, n_in]`` that resample the interval ``[start, start + length)`` of an axis.

    Pixel ``j`` covers ``[j, j + 1)``. As in PIL, shrinking widens the kernel (antialiasing). Weights outside
    the interval are dropped and the others normalised to sum to 1.
    """
    scale, left, length = (rearrange(x, "b -> b 1 1") for x in (length / n_out, start, length))
    outputs = torch.arange(n_out, device=start.device, dtype=start.dtype) + 0.5
    inputs = torch.arange(n_in, device=start.device, dtype=start.dtype) + 0.5
    outputs, inputs = rearrange(outputs, "o -> 1 o 1"), rearrange(inputs, "i -> 1 1 i")
    inside = (inputs > left) & (inputs < left + length)
    weights = _kernel((inputs - left - outputs * scale) / scale.clamp(min=1), kernel) * inside
    return weights / weights.sum(-1, keepdim=True)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor, size: int,
    kernel: str = "bilinear",
) -> Tensor:  # fmt: skip
    """Crops a box of each image, resizes it to ``S x S`` with antialiasing, and flips it where ``flip``.

    Args:
        images: ``[B, C, H, W]``, uint8 or float; values keep their range.
        top, left, height, width: the boxes in pixels.
        flip: ``[B]`` bool, where to mirror left to right.
        size: side ``S``.
        kernel: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        float32 ``[B, C, S, S]``. Bicubic may overshoot the input's range slightly.
    """
    n_channels, rows, columns = images.shape[1:]
    vertical = resampling_weights(top, height, rows, size, kernel)
    horizontal = resampling_weights(left, width, columns, size, kernel)
    horizontal = torch.where(rearrange(flip, "b -> b 1 1"), horizontal.flip(1), horizontal)
    # One batched matrix product per axis.
    x = rearrange(images.to(torch.float32), "b c h w -> b (c h) w")
    x = torch.bmm(x, rearrange(horizontal, "b s w -> b w s"))
    x = rearrange(x, "b (c h) s -> b h (c s)", h=rows)  # frees the product before the next is made
    x = torch.bmm(vertical, x)
    return rearrange(x, "b t (c s) -> b c t s", c=n_channels)


def crop_boxes(
    u: Tensor, rows: int, columns: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> dict[str, Tensor]:
    """Returns the boxes of a random resized crop for images of one size.

    A box's fraction of the area is uniform in ``scale`` and the logarithm of its aspect ratio is uniform in
    ``ratio``. A box that would leave the image is cut to it.

    Args:
        u: uniform random numbers ``[B, 4]``: area, aspect, vertical and horizontal position.
        rows, columns: ``H`` and ``W``.

    Returns:
        ``top``, ``left``, ``height`` and ``width`` in pixels, each ``[B]``.
    """
    area = (scale[0] + (scale[1] - scale[0]) * u[:, 0]) * rows * columns
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * u[:, 1])
    width = (area * aspect).sqrt().clamp(max=columns)
    height = (area / aspect).sqrt().clamp(max=rows)
    return {
        "top": u[:, 2] * (rows - height),
        "left": u[:, 3] * (columns - width),
        "height": height,
        "width": width,
    }


# Rows: luma and the two chrominance axes of YIQ, in which a hue shift is a rotation.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def linear_colour(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor,
    grey: Tensor,
) -> Tensor:  # fmt: skip
    """Changes brightness, contrast, saturation, hue and greyscale by one 3 x 4 matrix per image.

    Every step is linear in the colours (hue rotates the chrominance plane of YIQ), so their product is
    applied at once and values are clamped once at the end. This is many times faster than the stepwise jitter
    of the reference recipe; it is meant for small pictures.

    Args:
        brightness, contrast, saturation: factors ``[B]``; 1 leaves the image unchanged.
        hue: shift ``[B]`` as a fraction of the colour circle, in [-0.5, 0.5].
        grey: ``[B]`` bool, where to convert to greyscale.
    """
    luma = images.new_tensor(LUMA)
    eye = torch.eye(3, device=images.device)
    to_grey = luma.expand(3, 3)
    saturation = rearrange(torch.where(grey, 0.0, saturation), "b -> b 1 1")
    saturate = saturation * eye + (1 - saturation) * to_grey

    angle = 2 * math.pi * hue
    rotation = torch.zeros(len(hue), 3, 3, device=images.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    to_yiq = images.new_tensor(_TO_YIQ)
    hue_turn = torch.linalg.inv(to_yiq) @ rotation @ to_yiq

    gain = rearrange(brightness * contrast, "b -> b 1 1")
    matrix = gain * (saturate @ hue_turn)
    mean_luma = (images.mean((2, 3)) @ luma) * brightness
    offset = rearrange((1 - contrast) * mean_luma, "b -> b 1 1")
    pixels = torch.baddbmm(offset, matrix, rearrange(images, "b c h w -> b c (h w)"))
    return pixels.view_as(images).clamp_(0, 1)


def decode_rgb(raw: bytes | np.ndarray) -> Tensor:
    """Decodes a picture to uint8 ``[3, H, W]``; `encoders.image.pixels` has the rules for its values.

    Args:
        raw: encoded bytes, or an array ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]``.

    Raises:
        ValueError: if ``raw`` is not a picture, is damaged, has values or bands without a rule, has over
            `MOST_PIXELS` pixels, or one side is over `MOST_ASPECT` times the other. The message is one line;
            it begins with "unsupported" where nothing is damaged.
    """
    # PIL's memory is [H, W, 3]: a view of it costs `to_pil` no transposition.
    return torch.from_numpy(np.array(_open(raw, "RGB"))).permute(2, 0, 1)


def decode_grey(raw: bytes | np.ndarray) -> Tensor:
    """Decodes a picture to uint8 luma ``[1, H, W]``; see `decode_rgb`."""
    return torch.from_numpy(np.array(_open(raw, "L"))).unsqueeze(0)


def _open(raw: bytes | np.ndarray, mode: str) -> Image.Image:
    try:
        # PIL warns of odd metadata and transparent palettes in pictures that decode well.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(raw, np.ndarray):
                if raw.ndim > 1 and raw.size:
                    planes = raw.ndim == 3 and raw.shape[2] > 4 >= raw.shape[0]
                    height, width = raw.shape[1:] if planes else raw.shape[:2]
                    _check_size(width, height)
                return array_to_pil(raw, mode)
            image = Image.open(io.BytesIO(raw), formats=_FORMATS)
            _check_size(*image.size)  # before any pixel is decoded
            return file_to_pil(image, mode)
    except Exception as error:  # PIL's decoders raise a dozen types of errors on damaged data
        if str(error).startswith("unsupported"):
            raise
        if isinstance(error, UnidentifiedImageError):
            raise ValueError(_unidentified(bytes(raw))) from error
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"cannot decode the picture: {type(error).__name__}: {line}") from error


def _unidentified(raw: bytes) -> str:
    """Returns what a file is that PIL opens as none of the formats, and why it is not decoded."""
    what, kind = described(raw[:HEAD], len(raw)), file_kind(raw[:HEAD])
    if kind == "TIFF":
        # Without its tags it is damaged.
        with contextlib.suppress(Exception), warnings.catch_warnings(action="error"):
            tags = TiffImagePlugin.ImageFileDirectory_v2(raw[:8])
            file = io.BytesIO(raw)
            file.seek(tags.next)
            tags.load(file)
            return f"unsupported picture: {what}: {tiff_layout(tags)}; 1 or 3 bands of 8 or 16 bits are read"
    if kind in _READ:
        return f"cannot decode the picture: {what} whose header is damaged or of an unsupported kind"
    if kind is None:
        return f"cannot decode the picture: {what} is no picture of a known format"
    return f"unsupported picture: {what}; {', '.join(_FORMATS)} are read"


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are over the limit of {MOST_PIXELS:,}")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} pixels: one side is over {MOST_ASPECT:,} times the other")


def to_pil(image: Tensor) -> Image.Image:
    """Converts uint8 ``[3, H, W]`` or ``[1, H, W]`` to a PIL image."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if image.shape[0] == 1 else np.ascontiguousarray(array))


def from_pil(image: Image.Image) -> Tensor:
    """Converts a PIL image to contiguous uint8 ``[C, H, W]``."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def reference_crop_box(
    u: Tensor, rows: int, columns: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Returns the box ``(top, left, height, width)`` of torchvision's ``RandomResizedCrop`` for one image.

    Up to ten (area, aspect) pairs are tried, with sides rounded to whole pixels. If none fits, the box is the
    largest centred one whose aspect ratio is within ``ratio``.

    Args:
        u: uniform random numbers ``[22]``: area and aspect of ten attempts, then both positions.
    """
    numbers: list[float] = u.tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(10):
        area = rows * columns * (scale[0] + (scale[1] - scale[0]) * numbers[2 * attempt])
        aspect = math.exp(low + (high - low) * numbers[2 * attempt + 1])
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            top = int(numbers[20] * (rows - height + 1))
            return top, int(numbers[21] * (columns - width + 1)), height, width
    width = min(columns, round(rows * ratio[1]))
    height = min(rows, round(columns / ratio[0]))
    return (rows - height) // 2, (columns - width) // 2, height, width


def crop_and_resize(
    image: Tensor, box: tuple[int, int, int, int], size: int, resample: Image.Resampling
) -> Tensor:
    """Crops a box (top, left, height, width) of uint8 ``[C, H, W]`` and resizes it to ``[C, size, size]``."""
    top, left, height, width = box
    crop = to_pil(image[:, top : top + height, left : left + width])
    return from_pil(crop.resize((size, size), resample))


def resized_side(size: int) -> int:
    """Returns the shorter side from whose centre evaluation cuts ``size`` pixels: 256 for 224."""
    return round(size * 256 / 224)


def resize_and_centre(image: Tensor, size: int, resample: Image.Resampling) -> Tensor:
    """Resizes the shorter side of uint8 ``[C, H, W]`` to `resized_side` and crops the centre.

    Returns:
        uint8 ``[C, size, size]``.
    """
    rows, columns = image.shape[1:]
    short = resized_side(size)
    # As in torchvision's Resize, the longer side is truncated, not rounded.
    height, width = (short, short * columns // rows) if rows <= columns else (short * rows // columns, short)
    resized = to_pil(image).resize((width, height), resample)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return from_pil(resized.crop((left, top, left + size, top + size)))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Returns ``(images - mean) / std`` per channel."""
    mean_, std_ = (rearrange(images.new_tensor(values), "c -> c 1 1") for values in (mean, std))
    return (images - mean_) / std_


def flip_where(images: Tensor, flip: Tensor) -> Tensor:
    """Mirrors images left to right where ``flip``, ``[B]`` bool."""
    return torch.where(rearrange(flip, "b -> b 1 1 1"), images.flip(-1), images)


def luma(images: Tensor) -> Tensor:
    """Returns the perceived brightness, ``[B, 1, H, W]``."""
    red, green, blue = images.split(1, dim=1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, rearrange(factor, "b -> b 1 1 1")).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blends images with black; factor 0 returns black, 1 the image."""
    return _blend(images, images.new_zeros(()), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends images with their mean luma."""
    return _blend(images, luma(images).mean((2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blends images with their greyscale version."""
    return _blend(images, luma(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shifts the hue of HSV by ``shift``, a fraction of the colour circle in [-0.5, 0.5]."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    step = torch.where(chroma == 0, 1.0, chroma)
    # Hue in sixths of the circle; the largest channel selects the side of the hexagon.
    sixth = torch.where(
        value == red,
        (green - blue) / step,
        torch.where(value == green, 2 + (blue - red) / step, 4 + (red - green) / step),
    )
    shifted = (sixth / 6).add_(rearrange(shift, "b -> b 1 1"))
    sixth = (shifted - shifted.floor()).mul_(6)
    # Back to RGB: each channel is the same trapezium over the circle, shifted by a third of it.
    share = torch.stack([(sixth - 3).abs_().sub_(1), 2 - (sixth - 2).abs_(), 2 - (sixth - 4).abs_()], dim=1)
    chroma, low = (rearrange(x, "b h w -> b 1 h w") for x in (chroma, low))
    return share.clamp_(0, 1).mul_(chroma).add_(low)


def on_subset(images: Tensor, mask: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Applies ``function(images, *parameters)`` where ``mask``; leaves the other samples unchanged."""
    indices = mask.nonzero().squeeze(1)
    if len(indices) == 0:
        return images
    return images.index_copy(0, indices, function(images[indices], *(p[indices] for p in parameters)))


def colour_jitter(images: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Changes brightness, contrast, saturation and hue in an order per sample; clamps after each step.

    Args:
        factors: brightness, contrast and saturation, ``[B, 3]``; 1 leaves the image unchanged.
        shift: `hue`'s shift, ``[B]``; 0 leaves the image unchanged.
        order: ``[B, 4]``; each row is a permutation of the steps 0 to 3 (0 brightness, 1 contrast,
            2 saturation, 3 hue).
    """
    factors = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)  # hue blends by 1: not at all
    for step in order.unbind(1):
        # The first three steps blend with different images: one pass blends all samples.
        kind = rearrange(step, "b -> b 1 1 1")
        grey = luma(images)
        other = torch.where(kind == 1, grey.mean((2, 3), keepdim=True), torch.where(kind == 2, grey, 0.0))
        factor = factors.gather(1, rearrange(step, "b -> b 1")).squeeze(1)
        images = _blend(images, other, factor)
        images = on_subset(images, (step == 3) & (shift != 0), hue, shift)
    return images


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int = 6) -> Tensor:
    """Blurs each sample by a Gaussian of its ``sigma`` in pixels, with reflection at the border.

    The kernel spans ``2 * radius + 1`` pixels (three sigma for the 2.0 of the reference recipe).
    """
    vertical = _blur_matrix(sigma, images.shape[-2], radius)
    horizontal = _blur_matrix(sigma, images.shape[-1], radius)
    x = rearrange(images, "b c h w -> b (c h) w")
    x = torch.bmm(x, rearrange(horizontal, "b w_out w -> b w w_out")).view_as(images)
    return torch.matmul(rearrange(vertical, "b h_out h -> b 1 h_out h"), x)


def _blur_matrix(sigma: Tensor, n: int, radius: int) -> Tensor:
    """Returns banded weights ``[B, n, n]``; row ``i`` weighs the pixels of output ``i``."""
    distance = torch.arange(radius + 2, device=sigma.device)
    taps = torch.exp(-0.5 * (distance / rearrange(sigma, "b -> b 1")).square()) * (distance <= radius)
    j = rearrange(torch.arange(n, device=sigma.device), "n -> 1 n")
    i = rearrange(j, "1 n -> n 1")
    # Pixel j appears again as its mirror images -j and 2 (n - 1) - j; border pixels have one fewer.
    weights = taps[:, (i - j).abs().clamp(max=radius + 1)]
    weights += taps[:, (i + j).clamp(max=radius + 1)] * (j > 0)
    weights += taps[:, (2 * (n - 1) - i - j).clamp(max=radius + 1)] * (j < n - 1)
    return weights / weights.sum(-1, keepdim=True)


def solarise(images: Tensor, mask: Tensor) -> Tensor:
    """Inverts values of 0.5 and more where ``mask``, ``[B]`` bool.

    PIL inverts 8-bit values from 128 on; values in [0, 1] round to 128 or more from 0.5 on.
    """
    return torch.where(rearrange(mask, "b -> b 1 1 1") & (images >= 0.5), 1 - images, images)
