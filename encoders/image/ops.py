"""Image operations on a whole batch at once, each sample with its own parameters.

Legend: ``B`` samples, ``H, W`` input size, ``S`` output size. Images are float ``[B, 3, H, W]`` in
[0, 1] unless said otherwise, parameters are ``[B]``. Every function is pure: the same data and
parameters give the same pixels on any device.
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# A picture of more pixels is not decoded: as RGB it takes 0.4 GB, and as much again on its way. A side
# that many times the other would make it as large when the shorter is enlarged to a view's.
MOST_PIXELS, MOST_ASPECT = 2**27, 1000

# PIL would try any format it knows, and run Ghostscript for some.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")

# Luma weights of ITU-R BT.601, as PIL has them (torchvision's tensor path has 0.2989 for red).
LUMA = (0.299, 0.587, 0.114)


def _kernel(x: Tensor, name: str) -> Tensor:
    """Interpolation kernels as PIL defines them (bicubic with a = -0.5)."""
    x = x.abs()
    if name == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x.square() + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resampling_weights(start: Tensor, length: Tensor, n_in: int, n_out: int, kernel: str) -> Tensor:
    """Weights ``[B, n_out, n_in]`` that resample the interval ``[start, start + length)`` of an axis.

    Pixel ``j`` covers ``[j, j + 1)``. Shrinking widens the kernel (antialiasing), as PIL does;
    weights falling outside the interval are dropped and the rest made to sum to 1.
    """
    scale = (length / n_out).view(-1, 1, 1)
    left = start.view(-1, 1, 1)
    out = torch.arange(n_out, device=start.device, dtype=start.dtype).view(1, -1, 1) + 0.5
    pixel = torch.arange(n_in, device=start.device, dtype=start.dtype).view(1, 1, -1) + 0.5
    inside = (pixel > left) & (pixel < left + length.view(-1, 1, 1))
    weights = _kernel((pixel - left - out * scale) / scale.clamp(min=1), kernel) * inside
    return weights / weights.sum(-1, keepdim=True)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor, size: int,
    kernel: str = "bilinear",
) -> Tensor:  # fmt: skip
    """Crop a box of each image, resize it to ``S x S`` with antialiasing, flip where ``flip``.

    Args:
        images: ``[B, C, H, W]``, uint8 or float; values keep their range.
        top, left, height, width: the boxes in pixels.
        flip: ``[B]`` bool, mirrored left to right.
        kernel: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        float32 ``[B, C, S, S]``. Bicubic may overshoot the input's range slightly.
    """
    channels, rows, columns = images.shape[1:]
    vertical = resampling_weights(top, height, rows, size, kernel)
    horizontal = resampling_weights(left, width, columns, size, kernel)
    horizontal = torch.where(flip.view(-1, 1, 1), horizontal.flip(1), horizontal)
    # One batched product per axis: [B, C H, W] [B, W, S], then [B, S, H] [B, H, C S].
    x = torch.bmm(images.to(torch.float32).flatten(1, 2), horizontal.transpose(1, 2))
    x = x.view(-1, channels, rows, size).transpose(1, 2).reshape(-1, rows, channels * size)
    x = torch.bmm(vertical, x)
    return x.view(-1, size, channels, size).transpose(1, 2)


def crop_boxes(
    u: Tensor, rows: int, columns: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> dict[str, Tensor]:
    """Boxes of a random resized crop for images of one size.

    The box's share of the area is uniform in ``scale`` and the logarithm of its aspect ratio
    uniform in ``ratio``; a box that would leave the image is cut to it.

    Args:
        u: ``[B, 4]`` uniform numbers: area, aspect, vertical and horizontal position.
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


# Rows: luma, and the two colour-difference axes of YIQ, in which a hue shift is a rotation.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def linear_colour(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor,
    grey: Tensor,
) -> Tensor:  # fmt: skip
    """Brightness, contrast, saturation, hue and greyscale as one 3 x 4 matrix per image.

    Every step is linear in the colours (hue turns the chrominance plane of YIQ), so their product
    is taken before any pixel is touched, and values are clamped once at the end. It is many times
    faster than the stepwise jitter of the reference recipe and meant for small pictures.

    Args:
        brightness, contrast, saturation: ``[B]`` factors, 1 leaves the image as it is.
        hue: ``[B]`` shift as a share of the colour circle, in [-0.5, 0.5].
        grey: ``[B]`` bool, turned to greyscale.
    """
    luma = images.new_tensor(LUMA)
    eye = torch.eye(3, device=images.device)
    to_grey = luma.expand(3, 3)
    saturation = torch.where(grey, 0.0, saturation).view(-1, 1, 1)
    saturate = saturation * eye + (1 - saturation) * to_grey

    angle = 2 * math.pi * hue
    rotation = torch.zeros(len(hue), 3, 3, device=images.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    to_yiq = images.new_tensor(_TO_YIQ)
    hue_turn = torch.linalg.inv(to_yiq) @ rotation @ to_yiq

    gain = (brightness * contrast).view(-1, 1, 1)
    matrix = gain * (saturate @ hue_turn)
    mean_luma = (images.mean((2, 3)) @ luma) * brightness
    offset = ((1 - contrast) * mean_luma).view(-1, 1, 1)
    flat = torch.baddbmm(offset, matrix, images.flatten(2))
    return flat.view_as(images).clamp_(0, 1)


def decode_rgb(raw: bytes | np.ndarray) -> Tensor:
    """Encoded bytes, or a uint8 array ``[H, W]``, ``[H, W, 1]`` or ``[H, W, 3]``, to uint8 ``[3, H, W]``.

    Palettes are looked up, greyscale repeated, transparency dropped, CMYK converted, 16 bits per
    channel cut to 8; the EXIF orientation is ignored, as the reference code does.

    Raises:
        ValueError: the bytes are no picture, or the array is none, or it has over `MOST_PIXELS` pixels or
            is over `MOST_ASPECT` times as long as wide; one line.
    """
    # PIL hands out rows of RGB triples: kept as they are, `to_pil` costs no transposition.
    return torch.from_numpy(np.array(_open(raw, "RGB"))).permute(2, 0, 1)


def decode_grey(raw: bytes | np.ndarray) -> Tensor:
    """As `decode_rgb`, to uint8 luma ``[1, H, W]``."""
    return torch.from_numpy(np.array(_open(raw, "L"))).unsqueeze(0)


def _open(raw: bytes | np.ndarray, mode: str) -> Image.Image:
    if isinstance(raw, np.ndarray):
        if raw.dtype != np.uint8:
            raise ValueError(f"a picture as an array is uint8, this one is {raw.dtype} {list(raw.shape)}")
        raw = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
    try:
        # Odd metadata and transparent palettes make PIL warn; a picture that decodes is fine.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = (
                Image.fromarray(raw)
                if isinstance(raw, np.ndarray)
                else Image.open(io.BytesIO(raw), formats=_FORMATS)
            )
            _check_size(*image.size)  # before any pixel is decoded
            if image.mode.startswith("I"):  # PIL's own conversion clips 16 bits at 255
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
            return image.convert(mode)
    except Exception as error:  # PIL's decoders raise a dozen kinds on damaged data
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"cannot decode the picture: {type(error).__name__}: {line}") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are over the limit of {MOST_PIXELS:,}")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} pixels: one side is over {MOST_ASPECT:,} times the other")


def to_pil(image: Tensor) -> Image.Image:
    """uint8 ``[3, H, W]`` or ``[1, H, W]`` to a PIL image."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if image.shape[0] == 1 else np.ascontiguousarray(array))


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image to uint8 ``[C, H, W]``, contiguous."""
    array = torch.from_numpy(np.array(image))
    return array.unsqueeze(0) if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def reference_crop_box(
    u: Tensor, rows: int, columns: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """The box of torchvision's ``RandomResizedCrop`` for one image: ``(top, left, height, width)``.

    Up to ten (area, aspect) pairs are tried, sides rounded to whole pixels; if none fits, the
    largest centred box whose aspect ratio is within ``ratio``.

    Args:
        u: ``[22]`` uniform numbers: area and aspect of ten attempts, then both positions.
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
    """Cut a box (top, left, height, width) out of uint8 ``[C, H, W]``, resized to ``[C, size, size]``."""
    top, left, height, width = box
    part = to_pil(image[:, top : top + height, left : left + width])
    return from_pil(part.resize((size, size), resample))


def resize_and_centre(image: Tensor, size: int, resample: Image.Resampling) -> Tensor:
    """The shorter side to ``256 / 224 size``, then the middle: uint8 ``[C, H, W]`` to ``[C, size, size]``."""
    rows, columns = image.shape[1:]
    short = round(size * 256 / 224)
    # As torchvision's Resize: the longer side is cut, not rounded.
    height, width = (short, short * columns // rows) if rows <= columns else (short * rows // columns, short)
    resized = to_pil(image).resize((width, height), resample)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return from_pil(resized.crop((left, top, left + size, top + size)))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(images - mean) / std`` per channel."""
    return (images - images.new_tensor(mean).view(-1, 1, 1)) / images.new_tensor(std).view(-1, 1, 1)


def flip_where(images: Tensor, flip: Tensor) -> Tensor:
    """Mirror left to right where ``flip``, ``[B]`` bool."""
    return torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)


def luma(images: Tensor) -> Tensor:
    """Brightness as the eye weighs it, ``[B, 1, H, W]``."""
    red, green, blue = images.split(1, dim=1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: 0 gives black, 1 the image."""
    return _blend(images, images.new_zeros(()), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean luma."""
    return _blend(images, luma(images).mean((2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the greyscale image."""
    return _blend(images, luma(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by ``shift``, a share of the colour circle in [-0.5, 0.5]."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    step = torch.where(chroma == 0, 1.0, chroma)
    # Sixths of the circle, from the edge of the hexagon that the largest channel names.
    sixth = torch.where(
        value == red,
        (green - blue) / step,
        torch.where(value == green, 2 + (blue - red) / step, 4 + (red - green) / step),
    )
    turned = (sixth / 6).add_(shift.view(-1, 1, 1))
    sixth = (turned - turned.floor()).mul_(6)
    # Back: each channel is the same trapezium over the circle, a third of it apart.
    share = torch.stack([(sixth - 3).abs_().sub_(1), 2 - (sixth - 2).abs_(), 2 - (sixth - 4).abs_()], dim=1)
    return share.clamp_(0, 1).mul_(chroma.unsqueeze(1)).add_(low.unsqueeze(1))


def on_subset(images: Tensor, mask: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """``function(images, *parameters)`` for the samples of ``mask`` only; the others as they are."""
    chosen = mask.nonzero().squeeze(1)
    if len(chosen) == 0:
        return images
    return images.index_copy(0, chosen, function(images[chosen], *(p[chosen] for p in parameters)))


def colour_jitter(images: Tensor, factors: Tensor, shift: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, each sample in its own order, clamped at each step.

    Args:
        factors: ``[B, 3]`` of brightness, contrast, saturation; 1 leaves the image as it is.
        shift: ``[B]`` of `hue`; 0 leaves the image as it is.
        order: ``[B, 4]``, a permutation of 0 to 3 in each row: what is done first, second, ...
            (0 brightness, 1 contrast, 2 saturation, 3 hue).
    """
    padded = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)
    for step in order.unbind(1):
        # The first three are blends with three different images: one pass does all samples.
        which = step.view(-1, 1, 1, 1)
        grey = luma(images)
        other = torch.where(which == 1, grey.mean((2, 3), keepdim=True), torch.where(which == 2, grey, 0.0))
        images = _blend(images, other, padded.gather(1, step.unsqueeze(1)))
        images = on_subset(images, (step == 3) & (shift != 0), hue, shift)
    return images


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int = 6) -> Tensor:
    """Gaussian blur, each sample with its own ``sigma`` in pixels, reflecting at the border.

    The kernel spans ``2 * radius + 1`` pixels (three sigma for the 2.0 of the reference recipe).
    """
    vertical = _blur_matrix(sigma, images.shape[-2], radius)
    horizontal = _blur_matrix(sigma, images.shape[-1], radius)
    x = torch.bmm(images.flatten(1, 2), horizontal.transpose(1, 2)).view_as(images)
    return torch.matmul(vertical.unsqueeze(1), x)


def _blur_matrix(sigma: Tensor, n: int, radius: int) -> Tensor:
    """``[B, n, n]``, banded: row ``i`` weighs the pixels that output ``i`` is made of."""
    distance = torch.arange(radius + 2, device=sigma.device)
    taps = torch.exp(-0.5 * (distance / sigma.view(-1, 1)).square()) * (distance <= radius)
    j = torch.arange(n, device=sigma.device).view(1, -1)
    i = j.view(-1, 1)
    # Pixel j is met again as its mirror images -j and 2 (n - 1) - j; the borders have one less.
    weights = taps[:, (i - j).abs().clamp(max=radius + 1)]
    weights += taps[:, (i + j).clamp(max=radius + 1)] * (j > 0)
    weights += taps[:, (2 * (n - 1) - i - j).clamp(max=radius + 1)] * (j < n - 1)
    return weights / weights.sum(-1, keepdim=True)


def solarise(images: Tensor, mask: Tensor) -> Tensor:
    """Invert the bright half of the values where ``mask``, ``[B]`` bool.

    PIL inverts 8-bit values from 128 on; 0.5 is where a value in [0, 1] begins to round to it.
    """
    return torch.where(mask.view(-1, 1, 1, 1) & (images >= 0.5), 1 - images, images)
