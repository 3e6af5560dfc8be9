"""Augmentation sets for images: photographs, small pictures and digits.

A view is a normalised float tensor ``[B, 3, S, S]`` (digits: ``[B, 1, S, S]``).

Legend: ``B`` samples, ``H, W`` size of a picture, ``S`` size of a view.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.image import ops
from encoders.image.ops import decode_rgb

__all__ = ["DigitViews", "ReferenceViews", "SmallImageViews", "decode_rgb"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_RATIO = (3 / 4, 4 / 3)


def _symmetric(u: Tensor, strength: float) -> Tensor:
    """Maps ``u`` in [0, 1) to ``[-strength, strength)``."""
    return strength * (2 * u - 1)


class ReferenceViews(AugmentationSet):
    """The augmentations of Zbontar et al. (2021), appendix A, as in their released code.

    Both views apply a random resized crop (bicubic), a flip with probability 0.5, colour jitter in random
    order with 0.8 and greyscale with 0.2. Blur follows with probability 1.0 in the first view and 0.1 in the
    second, and solarisation with 0.0 and 0.2. PIL crops in the worker; everything else runs on the batch, in
    floats.

    Args:
        size: side ``S`` of a view in pixels. Evaluation resizes the shorter side to ``256 / 224 S`` (bicubic)
            and crops the centre.
        crop_scale: range of the crop's area as a fraction of the picture's.
        flip, jitter, grey: probabilities, the same for both views.
        blur, solarise: probabilities for the first and the second view.
    """

    strengths = (0.4, 0.4, 0.2)  # brightness, contrast, saturation
    hue = 0.1
    sigma = (0.1, 2.0)
    draws = 36

    def __init__(
        self,
        size: int = 224,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        jitter: float = 0.8,
        grey: float = 0.2,
        blur: tuple[float, float] = (1.0, 0.1),
        solarise: tuple[float, float] = (0.0, 0.2),
    ):
        super().__init__()
        if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be a range within (0, 1], not {crop_scale}")
        for name, p in (("flip", flip), ("jitter", jitter), ("grey", grey), *(("blur", p) for p in blur),
                        *(("solarise", p) for p in solarise)):  # fmt: skip
            if not 0 <= p <= 1:
                raise ValueError(f"{name} must be a probability, not {p}")
        self.size, self.crop_scale, self.flip, self.jitter, self.grey = size, crop_scale, flip, jitter, grey
        self.blur, self.solarise = blur, solarise

    def decode(self, raw: bytes | np.ndarray) -> Tensor:
        """Decodes any picture to uint8 ``[3, H, W]``."""
        return decode_rgb(raw)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 36]``. The crop stays 22 random numbers until the size is known."""
        jittered = u[:, 23] < self.jitter
        factors = 1 + (2 * u[:, 24:27] - 1) * u.new_tensor(self.strengths)
        return {
            "crop": u[:, :22],
            "flip": u[:, 22] < self.flip,
            "factors": torch.where(rearrange(jittered, "b -> b 1"), factors, 1.0),
            "hue": torch.where(jittered, _symmetric(u[:, 27], self.hue), 0.0),
            "order": u[:, 28:32].argsort(1),
            "grey": u[:, 32] < self.grey,
            "blur": u[:, 33] < self.blur[view],
            "sigma": self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u[:, 34],
            "solarise": u[:, 35] < self.solarise[view],
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Crops and resizes uint8 ``[3, H, W]`` to uint8 ``[3, S, S]``."""
        height, width = decoded.shape[1:]
        box = ops.reference_crop_box(parameters["crop"], height, width, self.crop_scale, CROP_RATIO)
        return ops.crop_and_resize(decoded, box, self.size, Image.Resampling.BICUBIC)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """Returns the normalised view of uint8 ``[B, 3, S, S]``."""
        p = parameters
        x = ops.flip_where(data.to(torch.float32) / 255, p["flip"])
        x = ops.colour_jitter(x, p["factors"], p["hue"], p["order"])
        x = torch.where(rearrange(p["grey"], "b -> b 1 1 1"), ops.luma(x), x)
        x = ops.on_subset(x, p["blur"], ops.gaussian_blur, p["sigma"])
        return ops.normalise(ops.solarise(x, p["solarise"]), IMAGENET_MEAN, IMAGENET_STD)

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the resized and centre-cropped picture, uint8 ``[3, S, S]``."""
        return ops.resize_and_centre(decoded, self.size, Image.Resampling.BICUBIC)

    def clean_batch(self, data: Tensor) -> Tensor:
        """Returns uint8 ``[B, 3, S, S]`` as normalised floats."""
        return ops.normalise(data.to(torch.float32) / 255, IMAGENET_MEAN, IMAGENET_STD)


class SmallImageViews(AugmentationSet):
    """Augmentations for small pictures of one size, which run entirely on the batch.

    Both views apply a random resized crop (bilinear), a flip with probability 0.5, colour jitter with
    probability 0.8 and greyscale. All colour changes are one linear step (`ops.linear_colour`). There is no
    blur and no solarisation: they would hide the little detail of a small picture.

    Args:
        size: side of the pictures in pixels; decoding resizes others to it.
        output_size: side ``S`` of a view; below ``size`` training is cheaper.
        min_scale: smallest fraction of the picture's area that a crop keeps.
        jitter: strength of brightness and contrast; saturation has half of it.
        hue: largest hue shift as a fraction of the colour circle.
        grey: probability of greyscale.
        mean, std: per channel, of values in [0, 1]; the defaults are CIFAR-10's.
    """

    draws = 11

    def __init__(
        self,
        size: int = 32,
        output_size: int = 24,
        min_scale: float = 0.2,
        jitter: float = 0.4,
        hue: float = 0.1,
        grey: float = 0.2,
        mean: Sequence[float] = CIFAR10_MEAN,
        std: Sequence[float] = CIFAR10_STD,
    ):
        super().__init__()
        self.size, self.output_size, self.min_scale = size, output_size, min_scale
        self.jitter, self.hue, self.grey = jitter, hue, grey
        self.mean, self.std = tuple(mean), tuple(std)

    def decode(self, raw: bytes | np.ndarray) -> Tensor:
        """Decodes any picture to uint8 ``[3, size, size]``."""
        return _decode_square(decode_rgb(raw), self.size)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 11]``, in the same way for both views."""
        jittered = u[:, 5] < 0.8
        strengths = u.new_tensor((self.jitter, self.jitter, self.jitter / 2))
        factors = torch.where(rearrange(jittered, "b -> b 1"), 1 + (2 * u[:, 6:9] - 1) * strengths, 1.0)
        return {
            **ops.crop_boxes(u[:, :4], self.size, self.size, (self.min_scale, 1.0), CROP_RATIO),
            "flip": u[:, 4] < 0.5,
            "brightness": factors[:, 0],
            "contrast": factors[:, 1],
            "saturation": factors[:, 2],
            "hue": torch.where(jittered, _symmetric(u[:, 9], self.hue), 0.0),
            "grey": u[:, 10] < self.grey,
        }

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """Returns the normalised view of uint8 ``[B, 3, size, size]``."""
        p = parameters
        x = ops.resized_crop(
            data, p["top"], p["left"], p["height"], p["width"], p["flip"], self.output_size
        )  # fmt: skip
        x = ops.linear_colour(x / 255, p["brightness"], p["contrast"], p["saturation"], p["hue"], p["grey"])
        return ops.normalise(x, self.mean, self.std)

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the picture unchanged."""
        return decoded

    def clean_batch(self, data: Tensor) -> Tensor:
        """Returns the whole pictures, normalised, ``[B, 3, size, size]``."""
        return ops.normalise(data.to(torch.float32) / 255, self.mean, self.std)


class DigitViews(AugmentationSet):
    """Augmentations for small greyscale digits, light on dark: a small affine map, a gain and noise.

    There is no flip and no crop: a mirrored or halved digit is a different digit.

    Args:
        size: side ``S`` of pictures and views in pixels; decoding resizes others to it.
        rotation: largest rotation in degrees.
        scale: largest fraction by which a digit grows or shrinks.
        shear: largest horizontal shear in columns per row.
        shift: largest shift per axis as a fraction of the side.
        gain: largest fraction by which values grow or shrink.
        noise: standard deviation of the Gaussian noise on values in [0, 1].
        mean, std: of values in [0, 1]; the defaults are those of scikit-learn's 8 x 8 digits.
    """

    def __init__(
        self,
        size: int = 8,
        rotation: float = 15.0,
        scale: float = 0.15,
        shear: float = 0.2,
        shift: float = 0.1,
        gain: float = 0.2,
        noise: float = 0.1,
        mean: float = 0.305,
        std: float = 0.376,
    ):
        super().__init__()
        self.size, self.rotation, self.scale, self.shear = size, rotation, scale, shear
        self.shift, self.gain, self.noise, self.mean, self.std = shift, gain, noise, mean, std
        self._pairs = (size * size + 1) // 2
        self.draws = 6 + 2 * self._pairs

    def decode(self, raw: bytes | np.ndarray) -> Tensor:
        """Decodes a uint8 array ``[H, W]`` or any picture to uint8 ``[1, S, S]``."""
        return _decode_square(ops.decode_grey(raw), self.size)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters, the noise included, from ``u [B, draws]``, in the same way for both views."""
        first, second = u[:, 6:].split(self._pairs, dim=1)
        # Box-Muller; u is below 1, so the logarithm is finite.
        radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
        normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return {
            "angle": _symmetric(u[:, 0], math.radians(self.rotation)),
            "scale": 1 + _symmetric(u[:, 1], self.scale),
            "shear": _symmetric(u[:, 2], self.shear),
            "shift": _symmetric(u[:, 3:5], self.shift),
            "gain": 1 + _symmetric(u[:, 5], self.gain),
            "noise": rearrange(normal[:, : self.size**2], "b (h w) -> b 1 h w", h=self.size),
        }

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """Returns the standardised view of uint8 ``[B, 1, S, S]``."""
        p = parameters
        cos, sin = p["angle"].cos() / p["scale"], p["angle"].sin() / p["scale"]
        # Maps output to input coordinates, both in [-1, 1], hence twice the shift.
        rows = (
            torch.stack([cos, p["shear"] * cos - sin, 2 * p["shift"][:, 0]], dim=1),
            torch.stack([sin, p["shear"] * sin + cos, 2 * p["shift"][:, 1]], dim=1),
        )
        x = data.to(torch.float32) / 255
        grid = functional.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False)
        x = x * rearrange(p["gain"], "b -> b 1 1 1") + self.noise * p["noise"]
        return (x - self.mean) / self.std

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the picture unchanged."""
        return decoded

    def clean_batch(self, data: Tensor) -> Tensor:
        """Returns uint8 ``[B, 1, S, S]`` as standardised floats."""
        return (data.to(torch.float32) / 255 - self.mean) / self.std


def _decode_square(image: Tensor, size: int) -> Tensor:
    """Resizes uint8 ``[C, H, W]`` to contiguous ``[C, size, size]``."""
    if image.shape[1:] != (size, size):
        return ops.from_pil(ops.to_pil(image).resize((size, size), Image.Resampling.BICUBIC))
    return image.contiguous()
