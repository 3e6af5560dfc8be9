"""Augmentation set for training a classifier on images."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.image import ops
from encoders.image.views import CROP_RATIO, IMAGENET_MEAN, IMAGENET_STD


class ClassificationViews(AugmentationSet):
    """Random resized crop and flip, as in the reference code's evaluation (bilinear throughout).

    A view is a float tensor ``[B, 3, S, S]``, normalised by ImageNet's statistics.

    Args:
        size: side ``S`` in pixels. Evaluation resizes the shorter side to ``256 / 224 S`` and crops the
            centre.
        crop_scale: range of the crop's area as a fraction of the picture's.
        squeeze: in evaluation, resize the whole picture to ``S x S`` instead, as Goyal et al., 2019, do for
            VOC07's SVMs.
    """

    draws = 23

    def __init__(self, size: int = 224, crop_scale: tuple[float, float] = (0.08, 1.0), squeeze: bool = False):
        super().__init__()
        self.size, self.crop_scale, self.squeeze = size, crop_scale, squeeze

    def decode(self, raw: bytes | np.ndarray) -> Tensor:
        """Decodes any picture to uint8 ``[3, H, W]``."""
        return ops.decode_rgb(raw)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 23]``. The crop stays 22 random numbers until the size is known."""
        return {"crop": u[:, :22], "flip": u[:, 22] < 0.5}

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Crops and resizes uint8 ``[3, H, W]`` to uint8 ``[3, S, S]``."""
        height, width = decoded.shape[1:]
        box = ops.reference_crop_box(parameters["crop"], height, width, self.crop_scale, CROP_RATIO)
        return ops.crop_and_resize(decoded, box, self.size, Image.Resampling.BILINEAR)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """Returns the normalised view of uint8 ``[B, 3, S, S]``."""
        return self.clean_batch(ops.flip_where(data, parameters["flip"]))

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the resized and centre-cropped, or squeezed, picture, uint8 ``[3, S, S]``."""
        if self.squeeze:
            return ops.from_pil(ops.to_pil(decoded).resize((self.size, self.size), Image.Resampling.BILINEAR))
        return ops.resize_and_centre(decoded, self.size, Image.Resampling.BILINEAR)

    def clean_batch(self, data: Tensor) -> Tensor:
        """Returns uint8 ``[B, 3, S, S]`` as normalised floats."""
        return ops.normalise(data.to(torch.float32) / 255, IMAGENET_MEAN, IMAGENET_STD)
