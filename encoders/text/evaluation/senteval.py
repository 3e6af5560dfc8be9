"""SentEval's protocol for labelled texts: a logistic regression with a validated penalty.

Conneau and Kiela, "SentEval: an evaluation toolkit for universal sentence representations", 2018. The
strengths, the folds' seed and the rule for ties are those of its senteval/tools/validation.py. SentEval uses
liblinear's one-versus-rest regression; this is one softmax regression whose intercept is not penalised.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_SEED = 1111
_STRENGTHS = tuple(2.0**t for t in range(-2, 4))
_STRENGTHS_BY_FOLDS = tuple(2.0**t for t in range(-1, 6))


class Samples(NamedTuple):
    """``features [N, F]``, an array or a sparse matrix, and ``labels [N]``, numbers or names."""

    features: Any
    labels: np.ndarray


class ProtocolResult(NamedTuple):
    """``accuracy`` and optionally ``f1`` in per cent, and the chosen ``C``, or that of each outer fold."""

    accuracy: float
    strengths: list[float]
    f1: float | None = None


def pair_features(first: Any, second: Any) -> Any:
    """Returns SentEval's features ``[|u - v|, u * v]``, ``[N, 2 F]``, of pairs of ``[N, F]``."""
    if isinstance(first, np.ndarray):
        return np.hstack([abs(first - second), first * second])
    from scipy.sparse import hstack

    return hstack([abs(first - second), first.multiply(second)], format="csr")


def protocol(
    train: Samples,
    validation: Samples | None = None,
    test: Samples | None = None,
    folds: int = 10,
    positive: str | None = None,
) -> ProtocolResult:
    """Returns the accuracy of a logistic regression on unscaled, frozen features.

    With a validation split, ``C`` is the best there of 2^-2 to 2^3. With a test split alone, it is the best
    of 2^-1 to 2^5 over stratified folds of the training split. With neither, each fold of the training split
    tests a regression trained on the other folds, whose ``C`` is the best of 2^-2 to 2^3 over as many folds
    of these. The smallest ``C`` wins among accuracies equal to a hundredth of a per cent.

    Args:
        folds: number of folds, 2 or more; published figures use 10.
        positive: class whose F1 on the test split is also computed.

    Raises:
        ValueError: if there are fewer than two classes or too few samples of a class for the folds, or a
            validation split or an F1 is given without a test split.
    """
    names, counts = np.unique(train.labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"a classifier needs 2 classes or more to train, got {len(names)}")
    if test is None and (validation is not None or positive is not None):
        given = "an F1" if validation is None else "a validation split"
        raise ValueError(f"{given} needs a test split, but there is none")
    if validation is not None and test is not None:
        strength = _best(_STRENGTHS, _accuracies(train, validation, _STRENGTHS))
        return _tested(train, test, strength, positive)
    if not 2 <= folds <= counts.min():
        fewest = names[counts.argmin()]
        raise ValueError(
            f"folds is {folds}: it must be 2 or more, and every class needs as many samples; "
            f"{fewest} has {counts.min()}"
        )
    if test is not None:
        return _tested(train, test, _by_folds(train, _STRENGTHS_BY_FOLDS, folds), positive)
    strengths, accuracies = [], []
    for fold_train, fold_test in _folds(train, folds):
        strengths.append(_by_folds(fold_train, _STRENGTHS, folds))
        accuracies += _accuracies(fold_train, fold_test, strengths[-1:])
    return ProtocolResult(float(np.mean(accuracies)), strengths)


def _tested(train: Samples, test: Samples, strength: float, positive: str | None) -> ProtocolResult:
    from sklearn.metrics import f1_score

    (predictions,) = _predictions(train, test, [strength])
    f1 = None
    if positive is not None:
        f1 = 100 * float(f1_score(test.labels == positive, predictions == positive, zero_division=0.0))
    return ProtocolResult(_accuracy(predictions, test), [strength], f1)


def _folds(samples: Samples, folds: int) -> Iterator[tuple[Samples, Samples]]:
    from sklearn.model_selection import StratifiedKFold

    x, y = samples
    with warnings.catch_warnings():
        # In an outer fold's training part the smallest class may have one sample fewer than there are folds.
        warnings.filterwarnings("ignore", "The least populated class")
        indices = list(StratifiedKFold(folds, shuffle=True, random_state=_SEED).split(y, y))
    for train, test in indices:
        yield Samples(x[train], y[train]), Samples(x[test], y[test])


def _by_folds(samples: Samples, strengths: Sequence[float], folds: int) -> float:
    by_fold = [_accuracies(train, test, strengths) for train, test in _folds(samples, folds)]
    return _best(strengths, np.mean(by_fold, axis=0))


def _best(strengths: Sequence[float], accuracies: Any) -> float:
    return strengths[int(np.argmax(np.round(accuracies, 2)))]


def _accuracies(train: Samples, test: Samples, strengths: Sequence[float]) -> list[float]:
    """Returns the accuracy in per cent of each strength."""
    return [_accuracy(predictions, test) for predictions in _predictions(train, test, strengths)]


def _accuracy(predictions: np.ndarray, test: Samples) -> float:
    return 100 * float(np.mean(predictions == test.labels))


def _predictions(train: Samples, test: Samples, strengths: Sequence[float]) -> list[np.ndarray]:
    """Returns the predicted classes ``[N]`` of the test samples for each strength."""
    from sklearn.linear_model import LogisticRegression

    x, queries, scale = train.features, test.features, 1.0
    if isinstance(x, np.ndarray):
        # Standardising takes a tenth of the time and has the same minimum: the intercept absorbs the shift
        # and the penalty the common scale.
        mean, scale = x.mean(0, dtype=np.float64), float(x.std(dtype=np.float64)) or 1.0
        x, queries = (x - mean) / scale, (queries - mean) / scale
    x, queries = x.astype(np.float32), queries.astype(np.float32)
    # Neighbouring strengths have neighbouring minima, hence the warm start.
    model = LogisticRegression(tol=1e-5, max_iter=5000, warm_start=True)
    predictions = []
    for strength in strengths:
        model.set_params(C=strength * scale**2).fit(x, train.labels)
        predictions.append(model.predict(queries))
    return predictions
