"""SentEval's protocol against scikit-learn called by hand."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from encoders.text.evaluation.senteval import Samples, pair_features, protocol

BY_VALIDATION = [0.25, 0.5, 1, 2, 4, 8]
BY_FOLDS = [0.5, 1, 2, 4, 8, 16, 32]


def samples(count, classes=3, seed=0, width=6, noise=1.0):
    """Overlapping classes, of features that are neither centred nor of one scale."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(9).standard_normal((classes, width))
    x = centres[labels] + noise * random.standard_normal((count, width))
    x = x * np.linspace(0.05, 0.4, width) + 1.5
    return Samples(x.astype(np.float32), np.array([f"class {label}" for label in labels]))


def accuracy(train, test, c):
    model = LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
    model.fit(train.features.astype(float), train.labels)
    return 100 * model.score(test.features.astype(float), test.labels)


def parts(of, folds):
    for inside, outside in StratifiedKFold(folds, shuffle=True, random_state=1111).split(of[0], of[1]):
        yield tuple(Samples(of.features[at], of.labels[at]) for at in (inside, outside))


def by_folds(of, strengths, folds):
    means = [np.mean([accuracy(*part, c) for part in parts(of, folds)]).round(2) for c in strengths]
    return strengths[int(np.argmax(means))]


@pytest.mark.parametrize(("seed", "best"), [(0, 8), (3, 4), (5, 0.25)])
def test_a_validation_split_chooses(seed, best):
    train, validation, test = (samples(n, seed=10 * seed + i) for i, n in enumerate((40, 90, 120)))
    each = [round(accuracy(train, validation, c), 2) for c in BY_VALIDATION]
    assert BY_VALIDATION[int(np.argmax(each))] == best
    found = protocol(train, validation, test)
    assert found.strengths == [best]
    assert found.accuracy == pytest.approx(accuracy(train, test, best))


@pytest.mark.parametrize(("folds", "seed", "best"), [(10, 3, 8), (4, 3, 0.5), (10, 0, 2)])
def test_folds_of_the_training_split_choose_for_a_test_split(folds, seed, best):
    train, test = samples(60, seed=seed), samples(150, seed=seed + 1)
    assert by_folds(train, BY_FOLDS, folds) == best
    found = protocol(train, test=test, folds=folds)
    assert found.strengths == [best]
    assert found.accuracy == pytest.approx(accuracy(train, test, best))


@pytest.mark.parametrize("positive", ["class 0", "class 1"])
def test_f1_of_one_class_is_precision_and_recall(positive):
    train, validation, test = (samples(60, seed=i, classes=2, noise=3) for i in range(3))
    model = LogisticRegression(C=protocol(train, validation, test).strengths[0], tol=1e-9, max_iter=10_000)
    said = model.fit(train.features, train.labels).predict(test.features) == positive
    right = (said & (test.labels == positive)).sum()
    precision, recall = right / said.sum(), right / (test.labels == positive).sum()
    expected = 200 * precision * recall / (precision + recall)
    assert precision != recall
    assert protocol(train, validation, test, positive=positive).f1 == pytest.approx(expected)
    assert protocol(train, test=test, folds=4, positive=positive).f1 is not None
    assert protocol(train, validation, test).f1 is None


def test_f1_of_a_class_that_is_never_said():
    train = Samples(np.ones((30, 4), np.float32), np.array(["a", "a", "b"] * 10))
    assert protocol(train, train, train, positive="b").f1 == 0


def test_without_a_test_split_folds_are_nested():
    of = samples(60, classes=2, seed=6, noise=1.5)
    best = [by_folds(inside, BY_VALIDATION, 4) for inside, _ in parts(of, 4)]
    assert best == [2, 4, 4, 0.5]  # each fold makes its own choice
    tested = [accuracy(*part, c) for part, c in zip(parts(of, 4), best, strict=True)]
    found = protocol(of, folds=4)
    assert found.strengths == best
    assert found.accuracy == pytest.approx(np.mean(tested))


def test_ten_folds_are_the_default_and_a_class_may_be_as_small():
    of = samples(200, classes=2)
    few = np.array(["rare" if i < 20 and i % 2 else label for i, label in enumerate(of.labels)])
    assert len(protocol(Samples(of.features, few)).strengths) == 10


def test_of_equals_the_strongest_penalty_is_taken():
    train, test = samples(30, noise=0.01), samples(30, seed=1, noise=0.01)
    train, test = (Samples(part.features * 20, part.labels) for part in (train, test))
    assert protocol(train, samples(30, seed=2, noise=0.01)._replace(features=test.features), test) == (
        100,
        [0.25],
        None,
    )
    assert protocol(train, test=test, folds=3) == (100, [0.5], None)


def test_the_features_scale_counts_and_their_place_does_not():
    """The penalty is one on features as they are; but the solver's tolerance must not depend on it."""
    train, validation, test = (samples(60, seed=i, noise=2) for i in range(3))

    def found(scale, shift):
        changed = [Samples(part.features * scale + shift, part.labels) for part in (train, validation, test)]
        found = protocol(*changed)
        return found, accuracy(changed[0], changed[2], found.strengths[0])

    for scale in (1e-3, 1.0, 10.0):
        mine, by_hand = found(scale, 0)
        assert mine.accuracy == pytest.approx(by_hand)
        assert found(scale, 5 * scale)[0].accuracy == pytest.approx(mine.accuracy, abs=1.7)  # 1 of 60
    assert found(1e-3, 0)[0].accuracy < found(1.0, 0)[0].accuracy


def test_sparse_features_are_dense_ones():
    train, validation, test = (samples(60, seed=i) for i in range(3))
    as_sparse = [Samples(sparse.csr_matrix(part.features), part.labels) for part in (train, validation, test)]
    assert protocol(*as_sparse) == protocol(train, validation, test)
    assert protocol(as_sparse[0], test=as_sparse[2], folds=3) == protocol(train, test=test, folds=3)


def test_features_that_are_all_the_same():
    train = Samples(np.ones((30, 4), np.float32), np.array(["a", "a", "b"] * 10))
    assert protocol(train, train, train).accuracy == pytest.approx(200 / 3)


def test_pair_features():
    u, v = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[3.0, 2.0], [4.0, 2.0]])
    by_hand = [[2, 0, 3, 4], [4, 3, 0, -2]]
    assert pair_features(u, v).tolist() == by_hand
    assert pair_features(sparse.csr_matrix(u), sparse.csr_matrix(v)).toarray().tolist() == by_hand
    assert np.array_equal(pair_features(v, u), pair_features(u, v))


A = samples(60)
WRONG = {
    "one class": (lambda: protocol(A._replace(labels=A.labels[:1].repeat(60)), A, A), "2 classes or more"),
    "small class": (
        lambda: protocol(A._replace(labels=np.array(["rare"] * 4 + ["often"] * 56))),
        "folds is 10: .* as many samples; rare has 4",
    ),
    "one fold": (lambda: protocol(A, test=A, folds=1), "folds is 1: it must be 2 or more"),
    "no test": (lambda: protocol(A, A), "a validation split needs a test split"),
    "no test for an F1": (lambda: protocol(A, positive="class 1"), "an F1 needs a test split"),
    "NaN": (lambda: protocol(A, A, A._replace(features=A.features * np.nan)), "NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
