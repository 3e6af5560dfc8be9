"""Average precision of a ranking, as the PASCAL VOC challenge defines it."""

import torch
from torch import Tensor


def average_precision(
    scores: Tensor, positive: Tensor, total: int | None = None, eleven_point: bool = False
) -> float:
    """Area under the precision-recall curve, from 0 to 1.

    The precision at a recall is the highest precision at any recall at least as high (Everingham et al.,
    "The PASCAL visual object classes challenge", 2010, section 4.2).

    Args:
        scores: ``[N]``, higher is more confident; equal scores keep their order.
        positive: ``[N]`` bool, which of them are positive.
        total: the number of positives, if some are not among the ``N`` (detections).
        eleven_point: the mean of the precisions at recalls 0, 0.1, ... 1 (VOC until 2009) instead of the
            whole area.

    Raises:
        ValueError: shapes that differ, scores that are not finite, more positives than ``total``, or
            no positives.
    """
    if scores.ndim != 1 or scores.shape != positive.shape or positive.dtype != torch.bool:
        raise ValueError(
            f"needs scores [N] and booleans [N], got {list(scores.shape)} and "
            f"{positive.dtype} {list(positive.shape)}"
        )
    positives = int(positive.sum())
    total = positives if total is None else total
    if total < 1 or positives > total:
        raise ValueError(f"{positives} positives among {total} to find")
    if not scores.isfinite().all():
        raise ValueError("scores hold NaN or infinity")
    hits = positive[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    if eleven_point:
        # Recall is compared in whole hits, because 0.1 * 3 is not exact in binary.
        needed = [t * total for t in range(11)]
        reached = [envelope[10 * hits >= n] for n in needed]
        return sum(float(precisions[0]) for precisions in reached if len(precisions)) / 11
    new = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((envelope * new).sum() / total)
