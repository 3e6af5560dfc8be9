"""SVMs against an exhaustive search by scikit-learn alone, and against what has to change nothing."""

import math

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from bt_multimodal.evaluation import svm_probe as module
from bt_multimodal.evaluation.average_precision import average_precision
from bt_multimodal.evaluation.svm_probe import check_targets, mean_average_precision, svm_probe

COSTS = (0.01, 0.3, 10.0)


def made(n: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features ``[n, 6]`` of any length, and three classes: clear, hidden in noise, and rare."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator).double()
    noise = torch.randn(n, 3, generator=generator).double()
    unit = torch.nn.functional.normalize(x, dim=1)
    positive = torch.stack(
        [unit[:, 0] > 0.2, unit[:, 1] + 0.5 * noise[:, 1] > 0.3, unit[:, 2] + 0.1 * noise[:, 2] > 0.55], dim=1
    )
    return x, positive.to(torch.int8) * 2 - 1


TRAIN, TARGETS = made()
TEST, TEST_TARGETS = made(70, seed=1)


def unit_rows(x: torch.Tensor) -> np.ndarray:
    return (x / x.square().sum(1, keepdim=True).sqrt()).numpy()


def assert_same(found, other):
    """The same SVMs, to what is left of float64 after a solver's thousand passes."""
    for a, b in zip(found, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def reference(cost: float) -> LinearSVC:
    return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, random_state=0, max_iter=2000, dual=True)


def test_the_grid_is_an_exhaustive_search():
    found = svm_probe(TRAIN, TARGETS, TEST, COSTS)
    x, queries = unit_rows(TRAIN), unit_rows(TEST)
    for k in range(3):
        y = TARGETS[:, k].numpy()
        grid = [cross_val_score(reference(c), x, y, cv=3, scoring="average_precision").mean() for c in COSTS]
        assert found.validation[k].tolist() == pytest.approx(grid, rel=1e-12)
        best = COSTS[max(range(3), key=grid.__getitem__)]
        assert found.costs[k] == best
        expected = reference(best).fit(x, y).decision_function(queries)
        np.testing.assert_allclose(found.scores[:, k].numpy(), expected, rtol=1e-6, atol=1e-9)
    assert len(set(found.costs.tolist())) > 1  # or nothing was chosen
    again = svm_probe(TRAIN, TARGETS, TEST, COSTS)
    assert_same(found, again)


def test_of_equal_costs_the_first():
    x = torch.tensor([[1.0, 0.1 * i] for i in range(5)] + [[-1.0, 0.1 * i] for i in range(5)])
    targets = torch.tensor([[1]] * 5 + [[-1]] * 5)
    found = svm_probe(x, targets, x, (3.0, 1.0, 2.0))
    assert found.validation.tolist() == [[1.0, 1.0, 1.0]]
    assert found.costs.tolist() == [3.0]


def test_the_length_of_a_feature_says_nothing():
    lengths = torch.logspace(-3, 3, len(TRAIN)).double()[:, None]
    found = svm_probe(TRAIN, TARGETS, TEST, COSTS)
    scaled = svm_probe(TRAIN * lengths, TARGETS, TEST * 1e4, COSTS)
    torch.testing.assert_close(scaled.scores, found.scores, rtol=1e-6, atol=1e-9)
    assert torch.equal(scaled.costs, found.costs)


def test_positives_weigh_twice(monkeypatch):
    found = svm_probe(TRAIN, TARGETS, TEST, (0.3,))
    # A positive of weight 2 is two of weight 1. The validation differs: doubles fall into several folds.
    monkeypatch.setattr(module, "_CLASS_WEIGHT", {1: 1.0, -1: 1.0})
    for k in range(3):
        own = TARGETS[:, k : k + 1]
        again = own[:, 0] > 0
        doubled = svm_probe(torch.cat([TRAIN, TRAIN[again]]), torch.cat([own, own[again]]), TEST, (0.3,))
        torch.testing.assert_close(doubled.scores[:, 0], found.scores[:, k], rtol=1e-3, atol=1e-3)
        once = svm_probe(TRAIN, own, TEST, (0.3,))
        assert (once.scores[:, 0] - found.scores[:, k]).abs().max() > 0.01


def test_difficult_samples_are_not_seen():
    x = torch.cat([TRAIN, -5 * TRAIN[:20]])
    blank = torch.zeros(20, 3, dtype=torch.int8)
    found = svm_probe(TRAIN, TARGETS, TEST, COSTS)
    with_difficult = svm_probe(x, torch.cat([TARGETS, blank]), TEST, COSTS)
    assert_same(found, with_difficult)
    # A class's own samples alone: those that are difficult for another one stay.
    one = torch.cat([TARGETS, blank - 1])
    one[90:, 1] = 0
    only = svm_probe(x, one, TEST, COSTS)
    torch.testing.assert_close(only.scores[:, 1], found.scores[:, 1], rtol=1e-6, atol=1e-9)
    assert (only.scores[:, 0] - found.scores[:, 0]).abs().max() > 0.01


def test_difficult_samples_as_negatives():
    x = torch.cat([TRAIN, -5 * TRAIN[:20]])
    blank = torch.zeros(20, 3, dtype=torch.int8)
    found = svm_probe(x, torch.cat([TARGETS, blank]), TEST, COSTS, difficult_as_absent=True)
    negatives = svm_probe(x, torch.cat([TARGETS, blank - 1]), TEST, COSTS)
    assert_same(found, negatives)


def test_unconverged_is_said_once(monkeypatch):
    monkeypatch.setattr(module, "_MAX_ITERATIONS", 2)
    with pytest.warns(RuntimeWarning) as caught:
        svm_probe(TRAIN, TARGETS[:, :2], TEST, (1e-6, 1000.0), folds=2)
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith("SVMs not converged after 2 iterations: ")
    assert "of 8 in cross-validation" in message
    assert message.endswith("of the 2 used")


def test_mean_average_precision_leaves_out_the_difficult():
    scores = torch.tensor([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    targets = torch.tensor([[1, 1], [0, -1], [-1, 0], [1, -1]])
    # First class: ranks 1 and 3 of 3, precisions 1 and 2/3. Second: last of 3, 1/3.
    mean, each = mean_average_precision(scores, targets)
    assert each.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 3])
    assert mean == pytest.approx((5 / 6 + 1 / 3) / 2)
    eleven, elevens = mean_average_precision(scores, targets, eleven_point=True)
    assert elevens.tolist() == pytest.approx([(6 + 5 * 2 / 3) / 11, 1 / 3])
    assert eleven == pytest.approx(elevens.mean().item())
    moved = scores.clone()
    moved[1, 0], moved[2, 1] = 9.0, -9.0
    assert mean_average_precision(moved, targets)[0] == mean


def test_learned_classes_are_ranked_better_than_by_chance():
    found = svm_probe(TRAIN, TARGETS, TEST, COSTS)
    _, each = mean_average_precision(found.scores, TEST_TARGETS)
    chance = (TEST_TARGETS > 0).double().mean(0)
    assert each[0] > 0.95
    assert (each > chance + 0.1).all()
    assert each[1] == average_precision(found.scores[:, 1], TEST_TARGETS[:, 1] > 0)


FEW = TARGETS.clone()
FEW[:, 2] = -1
FEW[:2, 2] = 1
NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: svm_probe(TRAIN, FEW, TEST),
            "^class 2 has 2 positive training samples; it needs at least 3$",
        ),
        (lambda: svm_probe(TRAIN, FEW, TEST, classes=NAMES), "^class 'cat' has 2 positive training samples"),
        (lambda: svm_probe(TRAIN, -FEW, TEST, classes=NAMES), "^class 'cat' has 2 negative training samples"),
        (lambda: svm_probe(TRAIN, TARGETS[:9], TEST), "90 features but 9 targets"),
        (lambda: svm_probe(TRAIN, TARGETS * 2, TEST), "targets must be 1, -1 or 0, not -?2"),
        (lambda: svm_probe(TRAIN, TARGETS.double(), TEST), "targets must be integers"),
        (lambda: svm_probe(TRAIN, TARGETS[:, 0], TEST), r"targets must be integers \[N, K\], got .* \[90\]"),
        (lambda: svm_probe(TRAIN, TARGETS, TEST[:, :2]), "6 training features, 2 test features"),
        (lambda: svm_probe(TRAIN, TARGETS, TEST / 0), "test features hold NaN or infinity"),
        (lambda: svm_probe(TRAIN[0], TARGETS, TEST), r"training features must be .* got torch.float64 \[6\]"),
        (lambda: svm_probe(TRAIN, TARGETS, TEST, ()), r"costs must be positive, got \[\]"),
        (lambda: svm_probe(TRAIN, TARGETS, TEST, (1.0, 0.0)), r"costs must be positive, got \[1.0, 0.0\]"),
        (lambda: svm_probe(TRAIN, TARGETS, TEST, folds=1), "folds must be 2 or more, not 1"),
        (lambda: check_targets(TARGETS, "test", classes=NAMES[:2]), "2 class names for 3 columns"),
        (lambda: mean_average_precision(TEST, TEST_TARGETS), r"scores are \[70, 6\], targets \[70, 3\]"),
        (
            lambda: mean_average_precision(TEST[:, :3], TEST_TARGETS * 0, classes=NAMES),
            "^class 'ant' has 0 positive test samples; it needs at least 1$",
        ),
        (lambda: mean_average_precision(TEST[:, :3] * math.nan, TEST_TARGETS), "scores hold NaN"),
    ],
)
def test_wrong_inputs(call, message):
    with pytest.raises(ValueError, match=message):
        call()
