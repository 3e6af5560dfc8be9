"""What frozen features are worth to linear support vector machines, one a class.

The recipe of VOC07 classification in Goyal et al., "Scaling and benchmarking self-supervised visual
representation learning", 2019, with the settings of VISSL's configuration for it.

Legend: ``N`` training samples, ``Q`` test samples, ``F`` features, ``K`` classes. Targets are integers
``[N, K]``: 1 has the class, -1 has it not, 0 is difficult.
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
    """``scores [Q, K]`` (higher is surer), chosen ``costs [K]`` and ``validation [K, costs]``; float64.

    ``validation`` is the mean average precision over the folds, from 0 to 1, by which a cost is chosen.
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
    """Linear SVMs on features of length 1, each with the cost ``C`` that cross-validates best.

    A class's SVM minimises scikit-learn's (`LinearSVC`) ::

        0.5 (|w|^2 + b^2) + C * sum_n weight_n * max(0, 1 - y_n (w x_n + b))^2

    with weight 2 for the positives and 1 for the negatives. Folds are stratified and not shuffled; of
    equally good costs the first is taken.

    Args:
        train, targets: ``[N, F]`` and ``[N, K]``.
        test: ``[Q, F]``; they have no part in any choice.
        costs: to choose ``C`` from.
        folds: of the cross-validation.
        seed: of the order in which the solver visits the samples.
        difficult_as_absent: train on the difficult samples as negatives, as the published code does.
            Otherwise a class's SVM does not see them.
        classes: names, for messages.

    Raises:
        ValueError: shapes that do not fit, features that are no numbers, costs that are not positive,
            or a class with fewer positives or negatives than folds.

    Warns:
        RuntimeWarning: once, how many of the SVMs stopped at the limit of iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    _check(train, targets, test)
    if not costs or min(costs) <= 0:
        raise ValueError(f"costs must be positive, got {list(costs)}")
    if folds < 2:
        raise ValueError(f"folds is 2 or more, not {folds}")
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
    late = final_late = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one for each of hundreds of fits
        for k in range(n_classes):
            seen = labels[:, k] != 0
            own_x, own_y = x[seen], labels[seen, k]
            for rest, held in StratifiedKFold(folds).split(own_x, own_y):
                for i, cost in enumerate(costs):
                    svm = fit(cost, own_x[rest], own_y[rest])
                    decided = svm.decision_function(own_x[held])
                    validation[k, i] += average_precision_score(own_y[held], decided) / folds
                    late += svm.n_iter_ >= _MAX_ITERATIONS
            chosen.append(float(costs[int(validation[k].argmax())]))
            svm = fit(chosen[-1], own_x, own_y)
            scores[:, k] = torch.from_numpy(svm.decision_function(queries))
            final_late += svm.n_iter_ >= _MAX_ITERATIONS
    if late or final_late:
        warnings.warn(
            f"SVMs not converged after {_MAX_ITERATIONS} iterations: {late} of {validation.numel() * folds} "
            f"in cross-validation, {final_late} of the {n_classes} used",
            RuntimeWarning,
            stacklevel=2,
        )
    return Svms(scores, torch.tensor(chosen, dtype=torch.float64), validation)


def mean_average_precision(
    scores: Tensor, targets: Tensor, eleven_point: bool = False, classes: Sequence[str] | None = None
) -> tuple[float, Tensor]:
    """Mean over the classes of `average_precision`, and that of every class ``[K]``; from 0 to 1.

    Args:
        scores, targets: ``[Q, K]`` both; difficult samples are left out of their class's ranking.
        eleven_point: the mean of 11 precisions in the place of the whole area.
        classes: names, for messages.

    Raises:
        ValueError: shapes that differ, or a class with no positive.
    """
    if scores.shape != targets.shape:
        raise ValueError(f"scores are {list(scores.shape)}, targets {list(targets.shape)}")
    check_targets(targets, "test", classes=classes)
    precisions = []
    for own, y in zip(scores.unbind(1), targets.unbind(1), strict=True):
        counted = y != 0
        precisions.append(average_precision(own[counted], y[counted] > 0, eleven_point=eleven_point))
    each = torch.tensor(precisions, dtype=torch.float64)
    return each.mean().item(), each


def check_targets(
    targets: Tensor, split: str, positives: int = 1, negatives: int = 0, classes: Sequence[str] | None = None
) -> None:
    """Refuse targets that are not 1, -1 and 0, and classes with too few positives or negatives.

    Raises:
        ValueError: which class has too few, and how many.
    """
    if targets.ndim != 2 or targets.is_floating_point() or not targets.numel():
        raise ValueError(f"targets must be integers [N, K], got {targets.dtype} {list(targets.shape)}")
    if (targets.abs() > 1).any():
        raise ValueError(f"targets are 1, -1 or 0, not {int(targets[targets.abs() > 1][0])}")
    if classes is not None and len(classes) != targets.shape[1]:
        raise ValueError(f"{len(classes)} class names for {targets.shape[1]} columns of targets")
    for sign, kind, least in ((1, "positive", positives), (-1, "negative", negatives)):
        for k, count in enumerate((targets == sign).sum(0).tolist()):
            if count < least:
                name = k if classes is None else repr(classes[k])
                raise ValueError(f"class {name} has {count} {kind} {split} samples, needed are {least}")


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
