"""Average precision of detections, by the rules of VOC and by those of COCO, in per cent.

``AP`` is the mean over overlaps 0.5, 0.55, ... 0.95, ``AP50`` and ``AP75`` are at one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from bt_multimodal.evaluation.average_precision import average_precision
from encoders.image.detection.annotations import Picture, quiet, run_lengths

_OVERLAPS = tuple(t / 100 for t in range(50, 100, 5))


class Detections(NamedTuple):
    """The ``M`` detections in one picture, in its own pixels."""

    boxes: Tensor  # [M, 4]
    scores: Tensor  # [M]
    labels: Tensor  # [M] from 1
    masks: list[dict[str, Any]] | None = None  # pycocotools' run lengths


def voc_ap(
    pictures: Sequence[Picture], found: Sequence[Detections], eleven_point: bool = False
) -> dict[str, float]:
    """``AP``, ``AP50`` and ``AP75`` by VOC's rules (Everingham et al., 2010, section 4.2).

    From the surest on, a detection is right if the object of its class that it overlaps most overlaps it by
    more than the threshold and was not found before. One whose object is difficult counts in neither way.
    Classes without an object to find are left out of the mean.

    Args:
        pictures, found: the same pictures in the same order.
        eleven_point: VOC's measure until 2009; see `average_precision`.

    Raises:
        ValueError: nothing to find at all.
    """
    classes = sorted({int(label) for picture in pictures for label in picture.labels[~picture.ignore]})
    if not classes:
        raise ValueError("no picture shows an object to find")
    values = torch.tensor([_class_ap(label, pictures, found, eleven_point) for label in classes])
    at = 100 * values.double().mean(0)
    return {"AP": float(at.mean()), "AP50": float(at[0]), "AP75": float(at[_OVERLAPS.index(0.75)])}


def _class_ap(
    label: int, pictures: Sequence[Picture], found: Sequence[Detections], eleven_point: bool
) -> list[float]:
    """The average precision of one class at every threshold."""
    scores, overlaps, objects = [], [], []
    ignored: list[bool] = []
    for picture, own in zip(pictures, found, strict=True):
        at = picture.labels == label
        mine = own.labels == label
        scores.append(own.scores[mine])
        iou = box_iou(own.boxes[mine].double(), picture.boxes[at].double())
        # Objects are numbered over all pictures; without one in the picture, the overlap is 0.
        best, which = iou.max(1) if at.any() else (iou.new_zeros(len(iou)), torch.zeros(len(iou)).long())
        overlaps.append(best)
        objects.append(which + len(ignored))
        ignored += picture.ignore[at].tolist()
    score, overlap, object_ = (torch.cat(part) for part in (scores, overlaps, objects))
    order = score.argsort(descending=True, stable=True)
    ranked = list(zip(overlap[order].tolist(), object_[order].tolist(), strict=True))
    precisions = []
    for threshold in _OVERLAPS:
        seen: set[int] = set()
        right: list[bool | None] = []
        for best_overlap, which_object in ranked:
            hit = best_overlap > threshold
            if hit and ignored[which_object]:
                right.append(None)
                continue
            right.append(hit and which_object not in seen)
            if hit:
                seen.add(which_object)
        counted = torch.tensor([one is not None for one in right], dtype=torch.bool)
        positive = torch.tensor([one for one in right if one is not None], dtype=torch.bool)
        total = ignored.count(False)
        precisions.append(average_precision(score[order][counted], positive, total, eleven_point))
    return precisions


def coco_ap(
    pictures: Sequence[Picture], found: Sequence[Detections], masks: bool = False
) -> dict[str, float]:
    """``AP``, ``AP50`` and ``AP75`` of the boxes by pycocotools; with ``masks`` also ``mask AP``, ...

    Args:
        pictures, found: the same pictures in the same order.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    kinds = {"bbox": "", "segm": "mask "} if masks else {"bbox": ""}
    results, annotations = [], []
    for i, (p, own) in enumerate(zip(pictures, found, strict=True)):
        results += _rows(i + 1, own.boxes, own.labels, own.masks, own.scores)
        lengths = [run_lengths(s, p.size) for s in p.segments] if masks and p.segments is not None else None
        rows = _rows(i + 1, p.boxes, p.labels, lengths, None)
        crowds = p.ignore.int().tolist()
        annotations += [{**row, "iscrowd": crowd} for row, crowd in zip(rows, crowds, strict=True)]
    labels = sorted({row["category_id"] for row in annotations})
    truth.dataset = {
        "info": {},
        "images": [{"id": i + 1, "height": p.size[0], "width": p.size[1]} for i, p in enumerate(pictures)],
        "annotations": [{**row, "id": i + 1} for i, row in enumerate(annotations)],
        "categories": [{"id": label} for label in labels],
    }
    figures: dict[str, float] = {}
    with quiet():
        truth.createIndex()
        for kind, prefix in kinds.items():
            names = [f"{prefix}{name}" for name in ("AP", "AP50", "AP75")]
            if not results:  # which pycocotools cannot read
                figures |= dict.fromkeys(names, 0.0)
                continue
            evaluation = COCOeval(truth, truth.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            # -1 stands for nothing to find.
            figures |= dict(zip(names, (max(0.0, 100 * float(v)) for v in evaluation.stats[:3]), strict=True))
    return figures


def _rows(
    image: int, boxes: Tensor, labels: Tensor, masks: Sequence[dict[str, Any]] | None, scores: Tensor | None
) -> list[dict[str, Any]]:
    """What pycocotools calls annotations."""
    rows = []
    for k, ((x, y, right, lower), label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        w, h = right - x, lower - y
        row: dict[str, Any] = {"image_id": image, "category_id": label, "bbox": [x, y, w, h], "area": w * h}
        if scores is not None:
            row["score"] = float(scores[k])
        if masks is not None:
            row["segmentation"] = masks[k]
        rows.append(row)
    return rows
