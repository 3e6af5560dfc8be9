"""Pictures with boxes as a detector takes them: resized, in training flipped.

A picture's shorter side becomes one of several sizes, unless the longer would pass a limit.
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
    """A batch: uint8 ``[3, h, w]`` each, targets (none in evaluation), sizes ``H, W`` before, indices."""

    pictures: list[Tensor]
    targets: list[dict[str, Tensor]] | None
    sizes: list[tuple[int, int]]
    at: list[int]


def decoded(pictures: Sequence[Picture]) -> DecodedRecords:
    """The pixels, uint8 ``[3, H, W]``, under the policy for damaged records; labels are indices."""
    files = [str(picture.path) for picture in pictures]
    return DecodedRecords(file_records(Path(), files, torch.arange(len(files)), []), ops.decode_rgb)


def resized(picture: Tensor, short: int, longest: int) -> Tensor:
    """uint8 ``[3, H, W]`` with its shorter side ``short`` (bilinear), or its longer ``longest`` if that
    would pass it."""
    rows, columns = picture.shape[1:]
    scale = min(short / min(rows, columns), longest / max(rows, columns))
    size = (int(columns * scale + 0.5), int(rows * scale + 0.5))
    return ops.from_pil(ops.to_pil(picture).resize(size, Image.Resampling.BILINEAR))


def target(picture: Picture, rows: int, columns: int, flip: bool, with_masks: bool) -> dict[str, Tensor]:
    """What a detector is to find in a picture that was resized to ``rows`` x ``columns``.

    Boxes go with the size and are cut to the picture, empty ones left out. Masks keep their own size.
    """
    height, width = picture.size
    boxes = picture.boxes * torch.tensor([columns / width, rows / height]).repeat(2)
    boxes[:, 0::2].clamp_(0, columns)
    boxes[:, 1::2].clamp_(0, rows)
    full = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if flip:
        left, top, right, bottom = boxes.unbind(1)
        boxes = torch.stack([columns - right, top, columns - left, bottom], 1)
    found = {"boxes": boxes[full], "labels": picture.labels[full]}
    if with_masks:
        own = masks(picture)[full]
        found["masks"] = own.flip(-1) if flip else own
    return found


class TrainPictures(Dataset):
    """Any picture at any epoch, flipped with probability 0.5, in one of several sizes.

    Args:
        pictures: with their objects, at least one each.
        sizes: the shorter side's, each as likely.
        longest: limit of the longer side.
        seed: the run's seed; with epoch and index it fixes size and flip.
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
        index = torch.tensor([i for _, i in keys])
        whole, taken = self._decoded.batch(index)
        made, targets = [], []
        drawn = uniforms(self.seed, keys[0][0], index, 0, 2).tolist()
        for picture, i, (flipped, sized) in zip(whole, taken.tolist(), drawn, strict=True):
            small = resized(picture, self.sizes[int(sized * len(self.sizes))], self.longest)
            flip = flipped < 0.5
            made.append(small.flip(-1) if flip else small)
            # What the picture turned out to be counts, whatever the annotation says.
            known = self.pictures[i] if self.with_masks else self.pictures[i]._replace(size=_size(picture))
            rows, columns = _size(small)
            targets.append(target(known, rows, columns, flip, self.with_masks))
        return Pictures(made, targets, [_size(p) for p in whole], taken.tolist())

    def __getitem__(self, key: tuple[int, int]) -> Pictures:
        return self.__getitems__([key])


class EvaluationPictures(Dataset):
    """Batches of pictures in one size, damaged ones left out.

    Args:
        pictures: of the test split.
        size, longest: see `resized`.
        batch_size: of this rank.
        rank, world: which part of the pictures is this rank's.
    """

    def __init__(
        self, pictures: Sequence[Picture], size: int, longest: int, batch_size: int, rank: int, world: int
    ):
        self.size, self.longest, self._decoded = size, longest, decoded(pictures)
        self.batches = torch.arange(rank, len(pictures), world).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> Pictures | None:
        found = [(self._decoded.get(j), j) for j in self.batches[i].tolist()]
        kept = [(picture, j) for picture, j in found if picture is not None]
        if not kept:
            return None
        small = [resized(picture, self.size, self.longest) for picture, _ in kept]
        return Pictures(small, None, [_size(p) for p, _ in kept], [j for _, j in kept])


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]


def run_length(mask: Any) -> dict[str, Any]:
    """A mask, bool ``[H, W]``, as pycocotools' compressed run lengths."""
    import numpy as np
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
