"""Operations on batches of log-mel spectrograms ``[B, 1, F, T]``, with parameters per sample.

Legend: ``B`` samples, ``F`` mel bands, ``T`` frames. Every function is pure.
"""

from functools import cache

import torch
from einops import rearrange
from torch import Tensor

NOISE = 2**18  # length of the fixed list of Gaussian numbers


def log_mixup_exp(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Returns ``log((1 - share) exp(x) + share exp(other))``: mixup in the linear domain.

    Niizumi et al., "BYOL for Audio", 2021, section III-B.

    Args:
        share: ``[B]``, in [0, 1).
    """
    share = rearrange(share, "b -> b 1 1 1")
    return torch.logaddexp(x + torch.log1p(-share), other + share.log())


def resize_weights(start: Tensor, length: Tensor, n_in: int, margin: int, n_out: int) -> Tensor:
    """Returns weights ``[B, n_out, n_in]`` that resize an interval of an axis bicubically.

    The axis holds ``n_in`` values, ``margin`` zeros before them and any number of zeros after them. The
    interval is ``[start, start + length)`` on it, in whole numbers. The interpolation equals
    ``torch.nn.functional.interpolate(mode="bicubic", align_corners=True)`` on the interval alone.
    """
    start, length = rearrange(start, "b -> b 1 1"), rearrange(length, "b -> b 1 1")
    steps = rearrange(torch.arange(n_out, device=start.device), "n -> 1 n 1")
    centre = start + steps * ((length - 1) / max(n_out - 1, 1))
    taps = centre.floor() + torch.arange(-1, 3, device=start.device)
    distance = (centre - taps).abs()
    near = (1.25 * distance - 2.25) * distance.square() + 1  # the cubic kernel with a = -0.75
    far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
    index = torch.minimum(taps.clamp(min=start), start + length - 1).long() - margin
    weights = weights * ((index >= 0) & (index < n_in))
    matrix = weights.new_zeros(len(weights), n_out, n_in)
    return matrix.scatter_add_(2, index.clamp(0, n_in - 1), weights)


def crop_boxes(
    u: Tensor, bands: int, frames: int, canvas: tuple[float, float], scale: tuple[float, float]
) -> dict[str, Tensor]:
    """Returns the boxes of a random resize crop, in whole bands and frames of a canvas.

    Args:
        u: uniform random numbers ``[B, 4]``: height, width, vertical and horizontal position.
        bands, frames: ``F`` and ``T``.
        canvas: height and width of the canvas as multiples of ``F`` and ``T``.
        scale: range of the box's sides as multiples of ``F`` and ``T``.

    Returns:
        ``top``, ``left``, ``height`` and ``width``, each ``[B]``.
    """
    boxes = {}
    for start, side, u_start, u_side, n, canvas_size in (
        ("top", "height", u[:, 2], u[:, 0], bands, int(canvas[0] * bands)),
        ("left", "width", u[:, 3], u[:, 1], frames, int(canvas[1] * frames)),
    ):
        length = (n * (scale[0] + (scale[1] - scale[0]) * u_side)).floor().clamp(1, canvas_size)
        boxes[side] = length
        boxes[start] = (u_start * (canvas_size - length + 1)).floor()
    return boxes


def resize_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, canvas: tuple[float, float]
) -> Tensor:
    """Crops each spectrogram's box from a canvas of zeros around it and resizes the crop to ``F x T``.

    Args:
        top, left, height, width: the boxes on the canvas, each ``[B]``; see `crop_boxes`.
        canvas: height and width of the canvas as multiples of ``F`` and ``T``.
    """
    bands, frames = x.shape[2:]
    margins = [(int(c * n) - n) // 2 for c, n in zip(canvas, (bands, frames), strict=True)]
    rows = resize_weights(top, height, bands, margins[0], bands)
    columns = resize_weights(left, width, frames, margins[1], frames)
    return (rows @ x.squeeze(1) @ columns.transpose(1, 2)).unsqueeze(1)


def linear_fade(x: Tensor, head: Tensor, tail: Tensor) -> Tensor:
    """Adds a line over time from ``head [B]`` to ``tail [B]``: the volume fades in or out."""
    time = torch.linspace(0, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    return x + torch.lerp(rearrange(head, "b -> b 1 1 1"), rearrange(tail, "b -> b 1 1 1"), time)


def mask_stretch(x: Tensor, start: Tensor, size: Tensor, axis: int) -> Tensor:
    """Sets an interval of an axis to 0, the mean, as SpecAugment does (Park et al., 2019).

    Args:
        start, size: ``[B]``, as fractions of the axis.
        axis: 2 masks bands, 3 masks frames.
    """
    position = (torch.arange(x.shape[axis], device=x.device) + 0.5) / x.shape[axis]
    masked = (position >= start[:, None]) & (position < (start + size)[:, None])
    return x.masked_fill(rearrange(masked, "b f -> b 1 f 1" if axis == 2 else "b t -> b 1 1 t"), 0.0)


def gaussian(start: Tensor, count: int) -> Tensor:
    """Returns Gaussian numbers ``[B, count]`` from a fixed cyclic list of `NOISE`, from ``start [B]`` on."""
    indices = (start[:, None] + torch.arange(count, device=start.device)) % NOISE
    return _gaussian(start.device)[indices]


@cache
def _gaussian(device: torch.device) -> Tensor:
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(device)
