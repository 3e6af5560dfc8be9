"""What a view of an image is: three augmentation sets, for photographs and small pictures.

A view is float ``[B, 3, S, S]`` (digits:
``[B, 1, S, S]``), normalised. Legend: ``B`` samples, ``H, W`` a picture's size, ``S`` a view's.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
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
    """Uniform in ``[-strength, strength)``."""
    return strength * (2 * u - 1)


class ReferenceViews(AugmentationSet):
    """The two views of Zbontar et al. (2021), appendix A, as their released code makes them.

    Both: random resized crop (bicubic), flip 0.5, colour jitter 0.8 in random order, greyscale 0.2.
    Then blur with probability 1.0 in the first view and 0.1 in the second, solarisation with 0.0
    and 0.2. The crop is PIL's, on the worker; the rest runs on the batch, in floats.

    Args:
        size: side ``S`` of a view in pixels. Evaluation resizes the shorter side to ``256 / 224 S``
            (bicubic) and takes the centre.
        crop_scale: range of the crop's area, as a share of the picture's.
        flip, jitter, grey: probabilities in either view.
        blur, solarise: probabilities in the first and in the second view.
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
            raise ValueError(f"crop_scale is a range within (0, 1], not {crop_scale}")
        for name, p in (("flip", flip), ("jitter", jitter), ("grey", grey), *(("blur", p) for p in blur),
                        *(("solarise", p) for p in solarise)):  # fmt: skip
            if not 0 <= p <= 1:
                raise ValueError(f"{name} is a probability, not {p}")
        self.size, self.crop_scale, self.flip, self.jitter, self.grey = size, crop_scale, flip, jitter, grey
        self.blur, self.solarise = blur, solarise

    def decode(self, raw: bytes | np.ndarray) -> Tensor:
        """Any picture to uint8 ``[3, H, W]``."""
        return decode_rgb(raw)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, 36]`` to parameters. The crop stays 22 uniform numbers until the size is known."""
        jittered = u[:, 23] < self.jitter
        factors = 1 + (2 * u[:, 24:27] - 1) * u.new_tensor(self.strengths)
        return {
            "crop": u[:, :22],
            "flip": u[:, 22] < self.flip,
            "factors": torch.where(jittered.unsqueeze(1), factors, 1.0),
            "hue": torch.where(jittered, _symmetric(u[:, 27], self.hue), 0.0),
            "order": u[:, 28:32].argsort(1),
            "grey": u[:, 32] < self.grey,
            "blur": u[:, 33] < self.blur[view],
            "sigma": self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u[:, 34],
            "solarise": u[:, 35] < self.solarise[view],
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Crop and resize: uint8 ``[3, H, W]`` to uint8 ``[3, S, S]``."""
        rows, columns = decoded.shape[1:]
        box = ops.reference_crop_box(parameters["crop"], rows, columns, self.crop_scale, CROP_RATIO)
        return ops.crop_and_resize(decoded, box, self.size, Image.Resampling.BICUBIC)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """uint8 ``[B, 3, S, S]`` to the normalised view."""
        p = parameters
        x = ops.flip_where(data.to(torch.float32) / 255, p["flip"])
        x = ops.colour_jitter(x, p["factors"], p["hue"], p["order"])
        x = torch.where(p["grey"].view(-1, 1, 1, 1), ops.luma(x), x)
        x = ops.on_subset(x, p["blur"], ops.gaussian_blur, p["sigma"])
        return ops.normalise(ops.solarise(x, p["solarise"]), IMAGENET_MEAN, IMAGENET_STD)

    def clean(self, decoded: Tensor) -> Tensor:
        """Resized and centre-cropped, uint8 ``[3, S, S]``."""
        return ops.resize_and_centre(decoded, self.size, Image.Resampling.BICUBIC)

    def clean_batch(self, data: Tensor) -> Tensor:
        """uint8 ``[B, 3, S, S]`` to normalised floats."""
        return ops.normalise(data.to(torch.float32) / 255, IMAGENET_MEAN, IMAGENET_STD)


class SmallImageViews(AugmentationSet):
    """Views of small pictures of one size, entirely on the batch; both views alike.

    Random resized crop (bilinear), flip 0.5, colour jitter with probability 0.8 and greyscale, the
    colours in one linear step (`ops.linear_colour`). No blur and no solarisation: they hide what
    little a small picture has.

    Args:
        size: side of the pictures in pixels; others are resized to it when decoded.
        output_size: side ``S`` of a view; smaller than ``size`` makes training cheaper.
        min_scale: smallest share of the picture's area that a crop keeps.
        jitter: strength of brightness and contrast; saturation has half of it.
        hue: largest hue shift, a share of the colour circle.
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
        """Any picture to uint8 ``[3, size, size]``."""
        return _decode_square(decode_rgb(raw), self.size)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, 11]`` to parameters, the same way for both views."""
        jittered = u[:, 5] < 0.8
        strengths = u.new_tensor((self.jitter, self.jitter, self.jitter / 2))
        factors = torch.where(jittered.unsqueeze(1), 1 + (2 * u[:, 6:9] - 1) * strengths, 1.0)
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
        """uint8 ``[B, 3, size, size]`` to the normalised view."""
        p = parameters
        x = ops.resized_crop(
            data, p["top"], p["left"], p["height"], p["width"], p["flip"], self.output_size
        )  # fmt: skip
        x = ops.linear_colour(x / 255, p["brightness"], p["contrast"], p["saturation"], p["hue"], p["grey"])
        return ops.normalise(x, self.mean, self.std)

    def clean(self, decoded: Tensor) -> Tensor:
        """The picture as it is."""
        return decoded

    def clean_batch(self, data: Tensor) -> Tensor:
        """The whole picture, normalised: ``[B, 3, size, size]``."""
        return ops.normalise(data.to(torch.float32) / 255, self.mean, self.std)


class DigitViews(AugmentationSet):
    """Views of small greyscale digits, light on dark: a small affine map, a gain and noise.

    No flip and no crop: mirrored or halved, a digit is another one.

    Args:
        size: side ``S`` of pictures and views in pixels; others are resized to it when decoded.
        rotation: largest rotation in degrees.
        scale: largest share by which a digit grows or shrinks.
        shear: largest horizontal shear, in columns per row.
        shift: largest shift per axis, a share of the side.
        gain: largest share by which values grow or shrink.
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
        """A uint8 array ``[H, W]`` or any picture to uint8 ``[1, S, S]``."""
        return _decode_square(ops.decode_grey(raw), self.size)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, draws]`` to parameters, the same way for both views; the noise is among them."""
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
            "noise": normal[:, : self.size * self.size].view(-1, 1, self.size, self.size),
        }

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """uint8 ``[B, 1, S, S]`` to the standardised view."""
        p = parameters
        cos, sin = p["angle"].cos() / p["scale"], p["angle"].sin() / p["scale"]
        # Output to input coordinates, both in [-1, 1], hence twice the shift.
        rows = (
            torch.stack([cos, p["shear"] * cos - sin, 2 * p["shift"][:, 0]], dim=1),
            torch.stack([sin, p["shear"] * sin + cos, 2 * p["shift"][:, 1]], dim=1),
        )
        x = data.to(torch.float32) / 255
        grid = functional.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False)
        x = x * p["gain"].view(-1, 1, 1, 1) + self.noise * p["noise"]
        return (x - self.mean) / self.std

    def clean(self, decoded: Tensor) -> Tensor:
        """The picture as it is."""
        return decoded

    def clean_batch(self, data: Tensor) -> Tensor:
        """uint8 to standardised floats ``[B, 1, S, S]``."""
        return (data.to(torch.float32) / 255 - self.mean) / self.std


def _decode_square(image: Tensor, size: int) -> Tensor:
    """uint8 ``[C, H, W]`` to contiguous ``[C, size, size]``."""
    if image.shape[1:] != (size, size):
        return ops.from_pil(ops.to_pil(image).resize((size, size), Image.Resampling.BICUBIC))
    return image.contiguous()
