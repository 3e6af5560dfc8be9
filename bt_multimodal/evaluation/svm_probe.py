"""Probing frozen features with linear support vector machines, one per class.

The recipe of VOC07 classification in Goyal et al., "Scaling and benchmarking self-supervised visual
representation learning", 2019, with the settings of VISSL's configuration.

Legend: ``N`` training samples, ``Q`` test samples, ``F`` features, ``K`` classes. Targets are integers
``[N, K]``: 1 is positive, -1 is negative, 0 is difficult.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from bt_multimodal.evaluation.average_precision import average_precision

COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)
_CLASS_WEIGHT = {1: 2.0, -1: 1.0}
_TOLERANCE, _MAX_ITERATIONS = 1e-4, 2000


class Svms(NamedTuple):
    """The result of `svm_probe`; all float64.

    Attributes:
        scores: ``[Q, K]``, higher is more confident.
        costs: ``[K]``, the chosen costs.
        validation: ``[K, costs]``, the average precision by which the costs are chosen: mean over folds,
            from 0 to 1.
    """

    scores: Tensor
    costs: Tensor
    validation: Tensor


def svm_probe(
    train: Tensor,
    targets: Tensor,
    test: Tensor,
    costs: Sequence[float] = COSTS,
    folds: int = 3,
    seed: int = 0,
    difficult_as_absent: bool = False,
    classes: Sequence[str] | None = None,
) -> Svms:
    """Linear SVMs on features normalised to length 1, with ``C`` chosen for each class by cross-validation.

    Each SVM (scikit-learn's `LinearSVC`) minimises ::

        0.5 (|w|^2 + b^2) + C * sum_n weight_n * max(0, 1 - y_n (w x_n + b))^2

    with weight 2 for positives and 1 for negatives. Folds are stratified and not shuffled. The first of
    equally good costs is used.

    Args:
        train, targets: ``[N, F]`` and ``[N, K]``.
        test: ``[Q, F]``, not used for any choice.
        costs: candidates for ``C``.
        folds: folds of the cross-validation.
        seed: of the order in which the solver visits the samples.
        difficult_as_absent: train on difficult samples as negatives, as the published code does.
            Otherwise they are left out.
        classes: class names, for messages.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, costs that are not positive,
            or a class with fewer positives or negatives than folds.

    Warns:
        RuntimeWarning: once, with the number of SVMs that stopped at the limit of iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    _check(train, targets, test)
    if not costs or min(costs) <= 0:
        raise ValueError(f"costs must be positive, got {list(costs)}")
    if folds < 2:
        raise ValueError(f"folds must be 2 or more, not {folds}")
    if difficult_as_absent:
        targets = targets.masked_fill(targets == 0, -1)
    check_targets(targets, "training", positives=folds, negatives=folds, classes=classes)
    x, queries = (F.normalize(part.double(), dim=1).numpy(force=True) for part in (train, test))
    labels = targets.numpy(force=True)

    def fit(cost: float, features: Any, y: Any) -> LinearSVC:
        return LinearSVC(
            C=cost, class_weight=_CLASS_WEIGHT, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS, random_state=seed,
            loss="squared_hinge", dual=True,
        ).fit(features, y)  # fmt: skip

    n_classes = labels.shape[1]
    validation = torch.zeros(n_classes, len(costs), dtype=torch.float64)
    scores = torch.zeros(len(queries), n_classes, dtype=torch.float64)
    chosen = []
    unconverged = final_unconverged = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one for each of hundreds of fits
        for k in range(n_classes):
            used = labels[:, k] != 0
            class_x, class_y = x[used], labels[used, k]
            for rest, held_out in StratifiedKFold(folds).split(class_x, class_y):
                for i, cost in enumerate(costs):
                    svm = fit(cost, class_x[rest], class_y[rest])
                    decisions = svm.decision_function(class_x[held_out])
                    validation[k, i] += average_precision_score(class_y[held_out], decisions) / folds
                    unconverged += svm.n_iter_ >= _MAX_ITERATIONS
            chosen.append(float(costs[int(validation[k].argmax())]))
            svm = fit(chosen[-1], class_x, class_y)
            scores[:, k] = torch.from_numpy(svm.decision_function(queries))
            final_unconverged += svm.n_iter_ >= _MAX_ITERATIONS
    if unconverged or final_unconverged:
        warnings.warn(
            f"SVMs not converged after {_MAX_ITERATIONS} iterations: {unconverged} of "
            f"{validation.numel() * folds} in cross-validation, {final_unconverged} of the {n_classes} used",
            RuntimeWarning,
            stacklevel=2,
        )
    return Svms(scores, torch.tensor(chosen, dtype=torch.float64), validation)


def mean_average_precision(
    scores: Tensor, targets: Tensor, eleven_point: bool = False, classes: Sequence[str] | None = None
) -> tuple[float, Tensor]:
    """The mean of the classes' `average_precision`, and that of each class ``[K]``; from 0 to 1.

    Args:
        scores, targets: ``[Q, K]`` both; the ranking of a class leaves out its difficult samples.
        eleven_point: the mean of 11 precisions instead of the whole area.
        classes: class names, for messages.

    Raises:
        ValueError: shapes that differ, or a class without positives.
    """
    if scores.shape != targets.shape:
        raise ValueError(f"scores are {list(scores.shape)}, targets {list(targets.shape)}")
    check_targets(targets, "test", classes=classes)
    precisions = []
    for class_scores, y in zip(scores.unbind(1), targets.unbind(1), strict=True):
        used = y != 0
        precisions.append(average_precision(class_scores[used], y[used] > 0, eleven_point=eleven_point))
    per_class = torch.tensor(precisions, dtype=torch.float64)
    return per_class.mean().item(), per_class


def check_targets(
    targets: Tensor, split: str, positives: int = 1, negatives: int = 0, classes: Sequence[str] | None = None
) -> None:
    """Check that targets are 1, -1 or 0, and that each class has enough positives and negatives.

    Raises:
        ValueError: other targets, or a class with too few samples.
    """
    if targets.ndim != 2 or targets.is_floating_point() or not targets.numel():
        raise ValueError(f"targets must be integers [N, K], got {targets.dtype} {list(targets.shape)}")
    if (targets.abs() > 1).any():
        raise ValueError(f"targets must be 1, -1 or 0, not {int(targets[targets.abs() > 1][0])}")
    if classes is not None and len(classes) != targets.shape[1]:
        raise ValueError(f"{len(classes)} class names for {targets.shape[1]} columns of targets")
    for sign, kind, least in ((1, "positive", positives), (-1, "negative", negatives)):
        for k, count in enumerate((targets == sign).sum(0).tolist()):
            if count < least:
                name = k if classes is None else repr(classes[k])
                raise ValueError(
                    f"class {name} has {count} {kind} {split} samples; it needs at least {least}"
                )


def _check(train: Tensor, targets: Tensor, test: Tensor) -> None:
    for name, x in (("training", train), ("test", test)):
        if x.ndim != 2 or not x.numel() or not x.is_floating_point():
            raise ValueError(f"{name} features must be floating point [N, F], got {x.dtype} {list(x.shape)}")
        if not x.isfinite().all():
            raise ValueError(f"{name} features hold NaN or infinity")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"{train.shape[1]} training features, {test.shape[1]} test features")
    if len(train) != len(targets):
        raise ValueError(f"{len(train)} features but {len(targets)} targets")
