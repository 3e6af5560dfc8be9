"""Average precision of detections in per cent, by VOC's and by COCO's rules.

``AP`` is the mean over the overlap thresholds 0.5, 0.55, ... 0.95; ``AP50`` and ``AP75`` use 0.5 and 0.75.
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
    """The ``M`` detections in one picture, in pixels of the original size."""

    boxes: Tensor  # [M, 4]
    scores: Tensor  # [M]
    labels: Tensor  # [M] from 1
    masks: list[dict[str, Any]] | None = None  # pycocotools' run lengths


def voc_ap(
    pictures: Sequence[Picture], found: Sequence[Detections], eleven_point: bool = False
) -> dict[str, float]:
    """Returns ``AP``, ``AP50`` and ``AP75`` by VOC's rules (Everingham et al., 2010, section 4.2).

    Detections are ranked by score. A detection is correct if its overlap with the object of its class that it
    overlaps most exceeds the threshold, and no earlier detection matched that object. Detections of difficult
    objects do not count. The mean is over the classes with an object to find.

    Args:
        pictures, found: the pictures and their detections, in the same order.
        eleven_point: VOC's measure until 2009; see `average_precision`.

    Raises:
        ValueError: if there is no object to find.
    """
    classes = sorted({int(label) for picture in pictures for label in picture.labels[~picture.ignore]})
    if not classes:
        raise ValueError("no picture shows an object to find")
    by_class = torch.tensor([_class_ap(label, pictures, found, eleven_point) for label in classes])
    ap = 100 * by_class.double().mean(0)  # at every threshold
    return {"AP": float(ap.mean()), "AP50": float(ap[0]), "AP75": float(ap[_OVERLAPS.index(0.75)])}


def _class_ap(
    label: int, pictures: Sequence[Picture], found: Sequence[Detections], eleven_point: bool
) -> list[float]:
    """Returns the average precision of one class at every threshold."""
    scores, overlaps, objects = [], [], []
    ignored: list[bool] = []
    for picture, detections in zip(pictures, found, strict=True):
        of_class = picture.labels == label
        detected = detections.labels == label
        scores.append(detections.scores[detected])
        iou = box_iou(detections.boxes[detected].double(), picture.boxes[of_class].double())
        if of_class.any():
            best, index = iou.max(1)
        else:
            best, index = iou.new_zeros(len(iou)), torch.zeros(len(iou)).long()
        overlaps.append(best)
        objects.append(index + len(ignored))  # objects are numbered over all pictures
        ignored += picture.ignore[of_class].tolist()
    score, overlap, object_ = (torch.cat(values) for values in (scores, overlaps, objects))
    order = score.argsort(descending=True, stable=True)
    ranked = list(zip(overlap[order].tolist(), object_[order].tolist(), strict=True))
    n_objects = ignored.count(False)
    precisions = []
    for threshold in _OVERLAPS:
        matched: set[int] = set()
        correct: list[bool | None] = []  # None: does not count
        for best_overlap, best_object in ranked:
            hit = best_overlap > threshold
            if hit and ignored[best_object]:
                correct.append(None)
                continue
            correct.append(hit and best_object not in matched)
            if hit:
                matched.add(best_object)
        counted = torch.tensor([outcome is not None for outcome in correct], dtype=torch.bool)
        positive = torch.tensor([outcome for outcome in correct if outcome is not None], dtype=torch.bool)
        precisions.append(average_precision(score[order][counted], positive, n_objects, eleven_point))
    return precisions


def coco_ap(
    pictures: Sequence[Picture], found: Sequence[Detections], masks: bool = False
) -> dict[str, float]:
    """Returns ``AP``, ``AP50`` and ``AP75`` of the boxes by pycocotools; with ``masks`` also ``mask AP``, ...

    Args:
        pictures, found: the pictures and their detections, in the same order.
        masks: evaluate the masks too.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    kinds = {"bbox": "", "segm": "mask "} if masks else {"bbox": ""}
    results, annotations = [], []
    for i, (p, d) in enumerate(zip(pictures, found, strict=True)):
        results += _annotations(i + 1, d.boxes, d.labels, d.masks, d.scores)
        lengths = [run_lengths(s, p.size) for s in p.segments] if masks and p.segments is not None else None
        objects = _annotations(i + 1, p.boxes, p.labels, lengths, None)
        crowds = p.ignore.int().tolist()
        annotations += [{**object_, "iscrowd": crowd} for object_, crowd in zip(objects, crowds, strict=True)]
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
            if not results:  # pycocotools cannot load an empty list
                figures |= dict.fromkeys(names, 0.0)
                continue
            evaluation = COCOeval(truth, truth.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            # pycocotools returns -1 if there is nothing to find.
            figures |= dict(zip(names, (max(0.0, 100 * float(v)) for v in evaluation.stats[:3]), strict=True))
    return figures


def _annotations(
    image: int, boxes: Tensor, labels: Tensor, masks: Sequence[dict[str, Any]] | None, scores: Tensor | None
) -> list[dict[str, Any]]:
    """Returns boxes as pycocotools' annotations."""
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
