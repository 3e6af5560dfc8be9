"""Data sets of pictures with boxes for a detector: resized, and in training randomly flipped.

A picture's shorter side is resized to one of several sizes, unless the longer side would exceed a limit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import file_records
from bt_multimodal.draws import uniforms
from encoders.image import ops
from encoders.image.detection.annotations import Picture, masks


class Pictures(NamedTuple):
    """A batch of resized pictures."""

    pictures: list[Tensor]  # uint8 [3, h, w] each
    targets: list[dict[str, Tensor]] | None  # None in evaluation
    sizes: list[tuple[int, int]]  # H, W before resizing
    indices: list[int]


def decoded(pictures: Sequence[Picture]) -> DecodedRecords:
    """Returns the pictures as decoded records, uint8 ``[3, H, W]``, with their indices as labels."""
    files = [str(picture.path) for picture in pictures]
    return DecodedRecords(file_records(Path(), files, torch.arange(len(files)), []), ops.decode_rgb)


def resized(picture: Tensor, short: int, longest: int) -> Tensor:
    """Resizes uint8 ``[3, H, W]`` (bilinear) to a shorter side ``short`` and a longer side of at most
    ``longest``."""
    rows, columns = picture.shape[1:]
    scale = min(short / min(rows, columns), longest / max(rows, columns))
    size = (int(columns * scale + 0.5), int(rows * scale + 0.5))
    return ops.from_pil(ops.to_pil(picture).resize(size, Image.Resampling.BILINEAR))


def target(picture: Picture, rows: int, columns: int, flip: bool, with_masks: bool) -> dict[str, Tensor]:
    """Returns a detector's target for a picture that was resized to ``rows`` x ``columns``.

    Boxes are scaled to that size and cut to the picture; empty ones are dropped. Masks keep their size.
    """
    height, width = picture.size
    boxes = picture.boxes * torch.tensor([columns / width, rows / height]).repeat(2)
    boxes[:, 0::2].clamp_(0, columns)
    boxes[:, 1::2].clamp_(0, rows)
    not_empty = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if flip:
        left, top, right, bottom = boxes.unbind(1)
        boxes = torch.stack([columns - right, top, columns - left, bottom], 1)
    objects = {"boxes": boxes[not_empty], "labels": picture.labels[not_empty]}
    if with_masks:
        object_masks = masks(picture)[not_empty]
        objects["masks"] = object_masks.flip(-1) if flip else object_masks
    return objects


class TrainPictures(Dataset):
    """Training pictures by (epoch, index), flipped with probability 0.5 and resized to a random size.

    Args:
        pictures: pictures with at least one object each.
        sizes: sizes of the shorter side in pixels, all equally likely.
        longest: limit of the longer side in pixels.
        seed: the run's seed; with epoch and index it determines size and flip.
        with_masks: whether the targets have masks.
    """

    def __init__(
        self, pictures: Sequence[Picture], sizes: Sequence[int], longest: int, seed: int, with_masks: bool
    ):
        self.pictures, self.sizes, self.longest, self.seed = pictures, tuple(sizes), longest, seed
        self.with_masks, self._decoded = with_masks, decoded(pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Pictures:
        requested = torch.tensor([i for _, i in keys])
        originals, indices = self._decoded.batch(requested)  # a damaged picture is replaced
        pictures, targets = [], []
        u = uniforms(self.seed, keys[0][0], requested, 0, 2).tolist()
        for original, i, (u_flip, u_size) in zip(originals, indices.tolist(), u, strict=True):
            picture = resized(original, self.sizes[int(u_size * len(self.sizes))], self.longest)
            flip = u_flip < 0.5
            pictures.append(picture.flip(-1) if flip else picture)
            # The decoded size counts, whatever the annotation says.
            record = self.pictures[i] if self.with_masks else self.pictures[i]._replace(size=_size(original))
            rows, columns = _size(picture)
            targets.append(target(record, rows, columns, flip, self.with_masks))
        return Pictures(pictures, targets, [_size(p) for p in originals], indices.tolist())

    def __getitem__(self, key: tuple[int, int]) -> Pictures:
        return self.__getitems__([key])


class EvaluationPictures(Dataset):
    """Batches of test pictures in one size, without damaged ones.

    Args:
        pictures: pictures of the test split.
        size, longest: see `resized`.
        batch_size: batch size of this rank.
        rank, world: select this rank's part of the pictures.
    """

    def __init__(
        self, pictures: Sequence[Picture], size: int, longest: int, batch_size: int, rank: int, world: int
    ):
        self.size, self.longest, self._decoded = size, longest, decoded(pictures)
        self.batches = torch.arange(rank, len(pictures), world).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> Pictures | None:
        decoded_pictures = {j: self._decoded.get(j) for j in self.batches[i].tolist()}
        originals = {j: picture for j, picture in decoded_pictures.items() if picture is not None}
        if not originals:
            return None
        pictures = [resized(picture, self.size, self.longest) for picture in originals.values()]
        return Pictures(pictures, None, [_size(p) for p in originals.values()], [*originals])


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]


def run_length(mask: Any) -> dict[str, Any]:
    """Encodes a mask, bool ``[H, W]``, as pycocotools' compressed run lengths."""
    import numpy as np
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
