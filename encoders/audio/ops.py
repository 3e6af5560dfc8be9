"""Operations on batches of log-mel spectrograms ``[B, 1, F, T]``, each sample with its own parameters.

``F`` mel bands, ``T`` frames. Every function is pure.
"""

from functools import cache

import torch
from torch import Tensor

NOISE = 2**18  # Gaussian numbers there are


def log_mixup_exp(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Mix in the linear domain: ``log((1 - share) exp(x) + share exp(other))``, ``share [B]`` in [0, 1).

    Niizumi et al., "BYOL for Audio", 2021, section III-B.
    """
    share = share.view(-1, 1, 1, 1)
    return torch.logaddexp(x + torch.log1p(-share), other + share.log())


def resize_weights(start: Tensor, length: Tensor, n_in: int, margin: int, n_out: int) -> Tensor:
    """Weights ``[B, n_out, n_in]`` that resize a stretch of an axis bicubically.

    The axis holds ``n_in`` values with ``margin`` zeros before them and any number after; the
    stretch is ``[start, start + length)`` of it, whole numbers. Interpolation is that of
    ``torch.nn.functional.interpolate(mode="bicubic", align_corners=True)`` on the stretch alone.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    steps = torch.arange(n_out, device=start.device).view(1, -1, 1)
    at = start + steps * ((length - 1) / max(n_out - 1, 1))
    taps = at.floor() + torch.arange(-1, 3, device=start.device)
    distance = (at - taps).abs()
    near = (1.25 * distance - 2.25) * distance.square() + 1  # the kernel with a = -0.75
    far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
    index = torch.minimum(taps.clamp(min=start), start + length - 1).long() - margin
    weights = weights * ((index >= 0) & (index < n_in))
    result = weights.new_zeros(len(weights), n_out, n_in)
    return result.scatter_add_(2, index.clamp(0, n_in - 1), weights)


def crop_boxes(
    u: Tensor, bands: int, frames: int, canvas: tuple[float, float], scale: tuple[float, float]
) -> dict[str, Tensor]:
    """Boxes of a random resize crop, in whole bands and frames of a canvas.

    Args:
        u: ``[B, 4]`` uniform numbers: height, width, vertical and horizontal position.
        bands, frames: ``F`` and ``T``.
        canvas: the canvas's height and width, as multiples of ``F`` and ``T``.
        scale: range of the box's sides, as multiples of ``F`` and ``T``.
    """
    boxes = {}
    for side, position, name, n, size in (
        (u[:, 0], u[:, 2], ("top", "height"), bands, int(canvas[0] * bands)),
        (u[:, 1], u[:, 3], ("left", "width"), frames, int(canvas[1] * frames)),
    ):
        length = (n * (scale[0] + (scale[1] - scale[0]) * side)).floor().clamp(1, size)
        boxes[name[1]] = length
        boxes[name[0]] = (position * (size - length + 1)).floor()
    return boxes


def resize_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, canvas: tuple[float, float]
) -> Tensor:
    """Put each spectrogram in the middle of a canvas of zeros, cut its box out, resize it to ``F x T``."""
    bands, frames = x.shape[2:]
    margins = [(int(c * n) - n) // 2 for c, n in zip(canvas, (bands, frames), strict=True)]
    rows = resize_weights(top, height, bands, margins[0], bands)
    columns = resize_weights(left, width, frames, margins[1], frames)
    return (rows @ x.squeeze(1) @ columns.transpose(1, 2)).unsqueeze(1)


def linear_fade(x: Tensor, head: Tensor, tail: Tensor) -> Tensor:
    """Add a straight line over time from ``head [B]`` to ``tail [B]``: a volume that fades in or out."""
    share = torch.linspace(0, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    return x + torch.lerp(head.view(-1, 1, 1, 1), tail.view(-1, 1, 1, 1), share)


def mask_stretch(x: Tensor, start: Tensor, size: Tensor, axis: int) -> Tensor:
    """Set a stretch of an axis to 0, the mean: SpecAugment (Park et al., 2019) on bands (2) or frames (3).

    Args:
        start, size: ``[B]``, as shares of the axis.
    """
    at = (torch.arange(x.shape[axis], device=x.device) + 0.5) / x.shape[axis]
    masked = (at >= start[:, None]) & (at < (start + size)[:, None])
    return x.masked_fill(masked.view(len(x), 1, *((-1, 1) if axis == 2 else (1, -1))), 0.0)


def gaussian(start: Tensor, count: int) -> Tensor:
    """Gaussian numbers ``[B, count]``, read round a fixed list of `NOISE` from ``start [B]`` on."""
    at = (start[:, None] + torch.arange(count, device=start.device)) % NOISE
    return _gaussian(start.device)[at]


@cache
def _gaussian(device: torch.device) -> Tensor:
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).to(device)
