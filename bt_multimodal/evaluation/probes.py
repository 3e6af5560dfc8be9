"""Probes of frozen features: kNN, linear and few-label accuracy, and measures of collapse.

Legend: ``N`` labelled samples, ``Q`` queries, ``F`` features, ``K`` classes. Features are
``[N, F]`` floating point, labels ``[N]`` integers from 0, on one device.
"""

import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor

from bt_multimodal.draws import uniforms
from bt_multimodal.evaluation.features import FeatureTable
from bt_multimodal.evaluation.figures import Cells, Figure
from bt_multimodal.evaluation.mlp_probe import mlp_probe

_FLOAT32_FROM = 20_000  # rows from which the linear probe is solved in float32
_MAX_ITERATIONS = 2000
_PURPOSE = 101  # random numbers of `few_labels`; 0 and 1 are those of the two views


def _check(features: Tensor, labels: Tensor | None = None, queries: Tensor | None = None) -> None:
    for name, x in (("features", features), ("queries", queries)):
        if x is None:
            continue
        if x.ndim != 2 or x.shape[0] == 0 or not x.is_floating_point():
            raise ValueError(f"{name} must be floating point [N, F], N > 0; got {x.dtype} {list(x.shape)}")
        if not x.isfinite().all():
            raise ValueError(f"{name} hold NaN or infinity")
    if queries is not None and queries.shape[1] != features.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} features, the training set {features.shape[1]}")
    if labels is not None:
        _check_labels(labels)
        if len(labels) != len(features):
            raise ValueError(f"{len(features)} features but {len(labels)} labels")
        if len(labels) and int(labels.min()) < 0:
            raise ValueError(
                "labels must be 0 or more; leave out samples with a negative label, which have none"
            )


def _check_labels(labels: Tensor) -> None:
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers [N], got {labels.dtype} {list(labels.shape)}")


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of predictions ``[Q]`` that equal ``labels [Q]``, in per cent."""
    if predictions.shape != labels.shape or predictions.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"needs as many predictions as labels, got {list(predictions.shape)} and {list(labels.shape)}"
        )
    return 100 * (predictions == labels).double().mean().item()


def knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    k: int = 20,
    temperature: float = 0.1,
    classes: int | None = None,
) -> Tensor:
    """Weighted k nearest neighbours by cosine similarity ``s``.

    Each of the ``k`` most similar bank entries votes for its label with weight
    ``exp(s / temperature)`` (Wu et al., "Unsupervised feature learning via non-parametric instance
    discrimination", 2018, section 3.4). Ties go to the lowest label.

    Args:
        bank, bank_labels: ``[N, F]`` and ``[N]``.
        queries: ``[Q, F]``; processed in chunks, so memory is bounded for any ``Q``.
        k: the number of neighbours, from 1 to ``N``.
        temperature: above 0.
        classes: ``K``; by default one more than the largest label.

    Returns:
        Predicted labels ``[Q]`` int64.

    Raises:
        ValueError: shapes or values that do not fit.
    """
    _check(bank, bank_labels, queries)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k} neighbours of a bank of {len(bank)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    highest = int(bank_labels.max())
    classes = highest + 1 if classes is None else classes
    if highest >= classes:
        raise ValueError(f"label {highest} with {classes} classes")
    bank = F.normalize(bank, dim=1)
    chunks = queries.to(bank.dtype).split(max(1, 2**24 // len(bank)))
    cosines = (F.normalize(chunk, dim=1) @ bank.T for chunk in chunks)
    return torch.cat([vote(cosine, bank_labels, k, temperature, classes) for cosine in cosines])


def vote(cosines: Tensor, bank_labels: Tensor, k: int, temperature: float, classes: int) -> Tensor:
    """`knn` from ``cosines [Q, N]`` of queries and bank."""
    nearest, neighbours = cosines.topk(k, dim=1)
    # Relative to the nearest neighbour: the same vote, without overflow at a small temperature.
    weights = ((nearest - nearest[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(cosines), classes)
    return votes.scatter_add_(1, bank_labels.long()[neighbours], weights).argmax(1)


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) standard deviation of each dimension, ``[F]`` float64 both."""
    _check(features)
    wide = features if len(features) > _FLOAT32_FROM else features.double()
    variance, mean = torch.var_mean(wide, dim=0, correction=0)
    return mean.double(), variance.double().sqrt()


def _standardise(x: Tensor, statistics: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """``(x - mean) / std``; dimensions that are constant up to rounding become 0."""
    mean, std = statistics
    factor = torch.where(std > 1e-6 * mean.abs(), std, math.inf).reciprocal()
    return (x.to(dtype) - mean.to(dtype)) * factor.to(dtype)


def fit_linear(features: Tensor, labels: Tensor, classes: int, c: float = 1.0) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression, solved to convergence.

    Minimises ::

        0.5 |W|^2 + c * sum_n cross_entropy(W x_n + b, y_n)        (b is not penalised)

    by full-batch L-BFGS with a strong Wolfe line search from zero, in the features' dtype. ``c`` is
    scikit-learn's ``C``. For two classes scikit-learn penalises one vector ``w = W_1 - W_0``; the minimum
    of the softmax has ``W_1 = -W_0``, so this function uses ``c / 2`` to obtain the same classifier.

    Returns:
        ``W [K, F]`` and ``b [K]``; ``b`` sums to zero.

    Raises:
        ValueError: ``c`` that is not positive, fewer than 2 classes, or a label beyond them.

    Warns:
        RuntimeWarning: the solver has not converged.
    """
    _check(features, labels)
    if c <= 0:
        raise ValueError(f"c must be positive, not {c}")
    if classes < 2 or int(labels.max()) >= classes:
        raise ValueError(f"needs labels below classes, and classes >= 2; got {int(labels.max())}, {classes}")
    labels = labels.long()
    penalty = 0.5 / ((c / 2 if classes == 2 else c) * len(features))
    weight = features.new_zeros(classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)
    double = features.dtype == torch.float64
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=1e-7 if double else 1e-6,
        tolerance_change=1e-14 if double else 1e-9,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:  # divided by c N, so that the tolerances do not depend on N
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels) + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(objective)
        objective()
    slope = max(float(p.grad.abs().max()) for p in (weight, bias) if p.grad is not None)
    if not slope < 1e-4:
        warnings.warn(
            f"the linear probe has not converged (gradient {slope:.1g}): choose a smaller c",
            RuntimeWarning,
            stacklevel=2,
        )
    return weight.detach(), bias.detach()


def linear_probe(
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    c: float = 1.0,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Predictions of multinomial logistic regression (`fit_linear`) on standardised features.

    Args:
        features, labels: ``[N, F]`` and ``[N]``. Solved in float64 for up to 20,000 rows, in float32 for
            more.
        queries: ``[Q, F]``.
        c: inverse strength of the L2 penalty, as in scikit-learn.
        statistics: mean and standard deviation ``[F]`` to standardise with, such as those of a larger
            unlabelled set (`feature_statistics`); by default those of ``features``.

    Returns:
        Predicted labels ``[Q]`` int64.

    Raises:
        ValueError: fewer than 2 classes, or shapes or values that do not fit.
    """
    _check(features, labels, queries)
    present, targets = labels.long().unique(return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"a linear probe needs 2 classes or more, got only label {int(present[0])}")
    statistics = feature_statistics(features) if statistics is None else statistics
    dtype = torch.float32 if len(features) > _FLOAT32_FROM else torch.float64
    weight, bias = fit_linear(_standardise(features, statistics, dtype), targets, len(present), c)
    rows = queries.split(_FLOAT32_FROM)
    scores = [F.linear(_standardise(chunk, statistics, dtype), weight, bias) for chunk in rows]
    return present[torch.cat([score.argmax(1) for score in scores])]


def few_labels(labels: Tensor, per_class: int, draw: int, seed: int = 0) -> Tensor:
    """Indices of ``per_class`` random samples of each class, class by class: ``[K * per_class]``.

    The random number of sample ``i`` depends only on (seed, draw, i), so 10 samples per class are a
    subset of 20 of the same draw. Negative labels mean no label.

    Raises:
        ValueError: a class has fewer samples than ``per_class``.
    """
    _check_labels(labels)
    if per_class < 1:
        raise ValueError(f"per_class must be 1 or more, not {per_class}")
    order = uniforms(seed, draw, torch.arange(len(labels)), _PURPOSE, 1)[:, 0].argsort(stable=True)
    order = order.to(labels.device)
    shuffled = labels[order]
    classes, counts = labels[labels >= 0].unique(return_counts=True)
    if len(classes) == 0:
        raise ValueError("there are no labels to draw from")
    if int(counts.min()) < per_class:
        fewest, count = int(classes[counts.argmin()]), int(counts.min())
        raise ValueError(f"per_class is {per_class}, but class {fewest} has only {count} labels")
    return torch.cat([order[shuffled == label][:per_class] for label in classes])


def few_label_columns(
    labels: Tensor, classes: Sequence[str], per_class: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Which numbers of labels a class can be drawn (`few_labels`), and why the others cannot.

    Args:
        labels: ``[N]``, -1 without a label.
        classes: their names.
        per_class: the wanted numbers.

    Returns:
        The numbers that can be drawn, and a note for each other one: ``"linear, 10 a class: ..."``.

    Raises:
        ValueError: a number below 1.
    """
    if any(count < 1 for count in per_class):
        raise ValueError(f"per_class must be 1 or more, not {list(per_class)}")
    present, counts = labels[labels >= 0].unique(return_counts=True)
    possible, notes = [], []
    for count in per_class:
        few = [classes[int(label)] for label in present[counts < count]]
        if few:
            names = ", ".join(few[:3]) + (f" and {len(few) - 3} more classes" if len(few) > 3 else "")
            notes.append(f"linear, {count} a class: there are fewer labels of {names}")
        else:
            possible.append(count)
    return possible, notes


def effective_rank(features: Tensor) -> float:
    """Effective rank of the centred features ``[N, F]``, between 1 and ``min(N - 1, F)``.

    ``exp(-sum_i p_i log p_i)`` with ``p`` the singular values divided by their sum (Roy and Vetterli,
    "The effective rank: a measure of effective dimensionality", EUSIPCO 2007). 0 if all rows are equal.
    """
    _check(features)
    wide = features.double()
    singular = torch.linalg.svdvals(wide - wide.mean(0))
    if singular[0] <= 1e-12 * wide.norm():
        return 0.0
    p = singular / singular.sum()
    return torch.special.entr(p).sum().exp().item()


def dead_dimensions(features: Tensor, tol: float = 1e-4) -> float:
    """Share (0 to 1) of dimensions with a standard deviation over the samples below ``tol``."""
    return (feature_statistics(features)[1] < tol).double().mean().item()


def pearson(x: Tensor, y: Tensor) -> float:
    """Pearson's linear correlation of ``x [N]`` and ``y [N]``, from -1 to 1.

    Raises:
        ValueError: the inputs are not two vectors of the same length ``N > 1``, or hold NaN or infinity,
            or one of them is constant.
    """
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"a correlation needs two [N], N > 1; got {list(x.shape)} and {list(y.shape)}")
    a, b = x.double(), y.double()
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a correlation needs finite numbers, got NaN or infinity")
    if (a == a[0]).all() or (b == b[0]).all():
        raise ValueError("nothing correlates with a constant")
    a, b = (F.normalize(vector - vector.mean(), dim=0) for vector in (a, b))
    return (a @ b).clamp(-1, 1).item()


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of ``x [N]`` and ``y [N]``, from -1 to 1: `pearson` of the ranks.

    Tied values have the mean of their ranks.

    Raises:
        ValueError: as `pearson`.
    """
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: Tensor) -> Tensor:
    if not x.isfinite().all():
        return x  # `pearson` raises the error
    _, value, count = x.flatten().unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[value].view_as(x)


def evaluate(
    train: FeatureTable,
    test: FeatureTable,
    per_class: Sequence[int] = (10,),
    draws: int = 5,
    k: int = 20,
    seed: int = 0,
    linear: bool = True,
    mlp: bool = False,
) -> Cells:
    """Accuracies in per cent: kNN and a linear probe on all labels, and linear probes on few labels.

    Args:
        train: features with labels. Rows with label -1 are only used in the statistics by which all
            linear probes standardise.
        test: held-out features, all labelled.
        per_class: numbers of labels per class; each is drawn ``draws`` times (`few_labels`).
        draws: draws of few labels.
        k: the number of neighbours, or all labelled rows if there are fewer.
        seed: of the draws and the MLP probe.
        linear: whether to run the linear probe on all labels (slow on wide features).
        mlp: whether to run `mlp_probe` on all labels (minutes).

    Returns:
        The columns "kNN", "linear", "MLP" and "linear, 10 a class"; the last with its spread over draws.

    Raises:
        ValueError: tables with different classes, or a class with fewer labels than ``per_class``.
    """
    if train.classes != test.classes:
        raise ValueError(f"the tables' classes differ: {train.classes} and {test.classes}")
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, not {draws}")
    _check(test.features, test.labels)
    _check_labels(train.labels)
    statistics = feature_statistics(train.features)
    known = train.labels >= 0
    x, y = train.features[known], train.labels[known]
    _check(x, y, test.features)
    # The draws come first: a class with too few labels is an error before the slow fits.
    picks = {count: [few_labels(y, count, draw, seed) for draw in range(draws)] for count in per_class}
    results: Cells = {"kNN": Figure(accuracy(knn(x, y, test.features, min(k, len(x))), test.labels))}
    if linear:
        predicted = linear_probe(x, y, test.features, statistics=statistics)
        results["linear"] = Figure(accuracy(predicted, test.labels))
    if mlp:
        results["MLP"] = Figure(accuracy(mlp_probe(x, y, test.features, seed), test.labels))
    for count, draws_of_count in picks.items():
        scores = torch.tensor(
            [
                accuracy(linear_probe(x[rows], y[rows], test.features, statistics=statistics), test.labels)
                for rows in draws_of_count
            ],
            dtype=torch.float64,
        )
        spread = scores.std().item() if draws > 1 else None
        results[f"linear, {count} a class"] = Figure(scores.mean().item(), spread)
    return results
