"""A picture of what a detector finds."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid, save_image

from encoders.image import ops
from encoders.image.detection.annotations import Picture, decode, run_lengths
from encoders.image.detection.data import resized
from encoders.image.detection.metrics import Detections

_SIDE = 320
_SURE = 0.5


def draw_detections(
    pictures: Sequence[Picture], found: Sequence[Detections], classes: Sequence[str], path: Path
) -> None:
    """Write pictures in two rows: above with their objects, below with the detections of a score of 0.5
    or more, or the surest one alone where there is none, and masks where there are any.

    Args:
        pictures, found: the same pictures in the same order.
        classes: names of label 1, 2, ...
    """
    above, below = [], []
    for picture, own in zip(pictures, found, strict=True):
        whole = ops.decode_rgb(picture.path.read_bytes())
        names = [classes[k - 1] for k in picture.labels.tolist()]
        segments = [run_lengths(s, picture.size) for s in picture.segments or ()]
        above.append(_drawn(whole, picture.boxes, names, segments, "lime"))
        least = min(_SURE, float(own.scores.max())) if len(own.scores) else _SURE
        sure = (own.scores >= least).nonzero().flatten().tolist()
        names = [f"{classes[int(own.labels[k]) - 1]} {own.scores[k]:.2f}" for k in sure]
        segments = [own.masks[k] for k in sure] if own.masks is not None else []
        below.append(_drawn(whole, own.boxes[sure], names, segments, "orange"))
    save_image(make_grid([*above, *below], nrow=len(above), padding=4) / 255, path)


def _drawn(picture: Tensor, boxes: Tensor, names: list[str], segments: list, colour: str) -> Tensor:
    """A square with the picture in it and boxes with names on it: uint8 ``[3, S, S]``."""
    if segments:
        shown = torch.stack([torch.from_numpy(decode(s)).bool() for s in segments])
        picture = draw_segmentation_masks(picture.contiguous(), shown, alpha=0.5, colors=colour)
    small = resized(picture, _SIDE, _SIDE)
    boxes = boxes * (small.shape[-1] / picture.shape[-1])
    full = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    if full.any():
        kept = [name for name, keep in zip(names, full.tolist(), strict=True) if keep]
        small = draw_bounding_boxes(
            small, boxes[full], kept, colors=colour, width=2, fill_labels=True, label_colors="black",
            label_background_colors=colour,
        )  # fmt: skip
    rows, columns = small.shape[1:]
    return torch.nn.functional.pad(small, (0, _SIDE - columns, 0, _SIDE - rows))
