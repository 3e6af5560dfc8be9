"""Drawing of detections."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid, save_image

from bt_multimodal.safe_files import LARGEST_RECORD, read_regular
from encoders.image import ops
from encoders.image.detection.annotations import Picture, decode, run_lengths
from encoders.image.detection.data import resized
from encoders.image.detection.metrics import Detections

_SIDE = 320  # pixels per picture
_SCORE = 0.5


def draw_detections(
    pictures: Sequence[Picture], found: Sequence[Detections], classes: Sequence[str], path: Path
) -> None:
    """Draws pictures in two rows: with their objects above and with the detections below.

    The detections are those with a score of 0.5 or more, or the best one if there is none. Masks are drawn
    where they exist.

    Args:
        pictures, found: the pictures and their detections, in the same order.
        classes: names of the labels 1, 2, ...
        path: the file to write.
    """
    upper_row, lower_row = [], []
    for picture, detections in zip(pictures, found, strict=True):
        pixels = ops.decode_rgb(read_regular(picture.path, LARGEST_RECORD))
        names = [classes[k - 1] for k in picture.labels.tolist()]
        segments = [run_lengths(s, picture.size) for s in picture.segments or ()]
        upper_row.append(_drawn(pixels, picture.boxes, names, segments, "lime"))
        scores, labels = detections.scores, detections.labels
        threshold = min(_SCORE, float(scores.max())) if len(scores) else _SCORE
        indices = (scores >= threshold).nonzero().flatten().tolist()
        names = [f"{classes[int(labels[k]) - 1]} {scores[k]:.2f}" for k in indices]
        segments = [detections.masks[k] for k in indices] if detections.masks is not None else []
        lower_row.append(_drawn(pixels, detections.boxes[indices], names, segments, "orange"))
    save_image(make_grid([*upper_row, *lower_row], nrow=len(upper_row), padding=4) / 255, path)


def _drawn(picture: Tensor, boxes: Tensor, names: list[str], segments: list, colour: str) -> Tensor:
    """Draws masks and named boxes into the picture, padded to a square: uint8 ``[3, S, S]``."""
    if segments:
        masks = torch.stack([torch.from_numpy(decode(s)).bool() for s in segments])
        picture = draw_segmentation_masks(picture.contiguous(), masks, alpha=0.5, colors=colour)
    small = resized(picture, _SIDE, _SIDE)
    boxes = boxes * (small.shape[-1] / picture.shape[-1])
    visible = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    if visible.any():
        visible_names = [name for name, keep in zip(names, visible.tolist(), strict=True) if keep]
        small = draw_bounding_boxes(
            small, boxes[visible], visible_names, colors=colour, width=2, fill_labels=True,
            label_colors="black", label_background_colors=colour,
        )  # fmt: skip
    rows, columns = small.shape[1:]
    return torch.nn.functional.pad(small, (0, _SIDE - columns, 0, _SIDE - rows))
