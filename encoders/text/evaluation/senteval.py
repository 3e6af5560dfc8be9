"""SentEval's protocol for labelled texts: a logistic regression whose penalty is chosen as the splits allow.

Conneau and Kiela, "SentEval: an evaluation toolkit for universal sentence representations", 2018, and its
senteval/tools/validation.py, which has the strengths, the folds' seed and what is taken of equals. Its
regression was liblinear's, one class against the rest; this is one softmax, its intercept without penalty.
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
    """``accuracy`` in per cent, the ``C`` that was chosen, or each outer fold's, and the ``f1`` asked for."""

    accuracy: float
    strengths: list[float]
    f1: float | None = None


def pair_features(first: Any, second: Any) -> Any:
    """SentEval's features of pairs: ``|u - v|`` and ``u * v`` beside it, ``[N, F]`` twice to ``[N, 2 F]``."""
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
    """Accuracy of a logistic regression on frozen features as they are.

    ``C`` is, with a validation split, the best there of 2^-2 to 2^3; with a test split alone, the best
    of 2^-1 to 2^5 over stratified folds of the training split. With neither, the training split is cut
    into folds, and each is the test of what the others train, with the best of 2^-2 to 2^3 over as many
    folds of those. The least of those that are equal to hundredths of a per cent.

    Args:
        folds: 2 or more; published figures are of 10.
        positive: the class whose F1 on the test split is wanted, in per cent.

    Raises:
        ValueError: fewer than two classes, too few samples of one for the folds, a validation split
            without a test split, or an F1 without one.
    """
    names, counts = np.unique(train.labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"a classifier needs 2 classes or more to train, got {len(names)}")
    if test is None and (validation is not None or positive is not None):
        wanted = "an F1" if validation is None else "a validation split"
        raise ValueError(f"there is {wanted}, but no test split")
    if validation is not None and test is not None:
        strength = _best(_STRENGTHS, _accuracies(train, validation, _STRENGTHS))
        return _tested(train, test, strength, positive)
    if not 2 <= folds <= counts.min():
        fewest = names[counts.argmin()]
        raise ValueError(
            f"{folds} folds need 2 or more and as many samples of a class; {fewest} has {counts.min()}"
        )
    if test is not None:
        return _tested(train, test, _by_folds(train, _STRENGTHS_BY_FOLDS, folds), positive)
    strengths, accuracies = [], []
    for inside, outside in _folds(train, folds):
        strengths.append(_by_folds(inside, _STRENGTHS, folds))
        accuracies += _accuracies(inside, outside, strengths[-1:])
    return ProtocolResult(float(np.mean(accuracies)), strengths)


def _tested(train: Samples, test: Samples, strength: float, positive: str | None) -> ProtocolResult:
    from sklearn.metrics import f1_score

    (answers,) = _answers(train, test, [strength])
    f1 = None
    if positive is not None:
        f1 = 100 * float(f1_score(test.labels == positive, answers == positive, zero_division=0.0))
    return ProtocolResult(_share(answers, test), [strength], f1)


def _folds(samples: Samples, folds: int) -> Iterator[tuple[Samples, Samples]]:
    from sklearn.model_selection import StratifiedKFold

    x, y = samples
    with warnings.catch_warnings():
        # inside a fold the smallest class may have one sample less than there are folds
        warnings.filterwarnings("ignore", "The least populated class")
        places = list(StratifiedKFold(folds, shuffle=True, random_state=_SEED).split(y, y))
    for inside, outside in places:
        yield Samples(x[inside], y[inside]), Samples(x[outside], y[outside])


def _by_folds(samples: Samples, strengths: Sequence[float], folds: int) -> float:
    each = [_accuracies(inside, outside, strengths) for inside, outside in _folds(samples, folds)]
    return _best(strengths, np.mean(each, axis=0))


def _best(strengths: Sequence[float], accuracies: Any) -> float:
    return strengths[int(np.argmax(np.round(accuracies, 2)))]


def _accuracies(train: Samples, test: Samples, strengths: Sequence[float]) -> list[float]:
    """In per cent, of each strength in its order."""
    return [_share(answers, test) for answers in _answers(train, test, strengths)]


def _share(answers: np.ndarray, test: Samples) -> float:
    return 100 * float(np.mean(answers == test.labels))


def _answers(train: Samples, test: Samples, strengths: Sequence[float]) -> list[np.ndarray]:
    """Classes ``[N]`` of the test samples, by each strength in its order."""
    from sklearn.linear_model import LogisticRegression

    x, queries, scale = train.features, test.features, 1.0
    if isinstance(x, np.ndarray):
        # The minimum is the same, but found in a tenth of the time: the intercept takes up any shift, and
        # the penalty a common scale.
        mean, scale = x.mean(0, dtype=np.float64), float(x.std(dtype=np.float64)) or 1.0
        x, queries = (x - mean) / scale, (queries - mean) / scale
    x, queries = x.astype(np.float32), queries.astype(np.float32)
    # From one strength's minimum it is not far to the next.
    model = LogisticRegression(tol=1e-5, max_iter=5000, warm_start=True)
    found = []
    for strength in strengths:
        model.set_params(C=strength * scale**2).fit(x, train.labels)
        found.append(model.predict(queries))
    return found
