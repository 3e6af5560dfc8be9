"""Average precision against curves drawn by hand and against scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score

from bt_multimodal.evaluation.average_precision import average_precision

SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])


def hits(*ranks: int) -> torch.Tensor:
    return torch.tensor([rank in ranks for rank in (1, 2, 3, 4, 5)])


def test_the_whole_area_by_hand():
    # Right are ranks 1, 3 and 4: precisions 1, 2/3 and 3/4 there, of which the third also covers the second.
    assert average_precision(SCORES, hits(1, 3, 4)) == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    assert average_precision(SCORES, hits(5)) == pytest.approx(1 / 5)
    assert average_precision(SCORES, hits(1, 2)) == 1


def test_eleven_points_by_hand():
    # Recalls 0 to 0.3 are reached at rank 1, 0.4 to 1 at rank 4.
    assert average_precision(SCORES, hits(1, 3, 4), eleven_point=True) == pytest.approx((4 + 7 * 3 / 4) / 11)
    # Two right: recalls 0 to 0.5 need the first of them.
    assert average_precision(SCORES, hits(2, 5), eleven_point=True) == pytest.approx(
        (6 * 1 / 2 + 5 * 2 / 5) / 11
    )


@pytest.mark.parametrize("total", range(1, 31))
def test_a_recall_that_is_met_exactly_counts(total):
    found = torch.tensor([True, False] * total)
    scores = torch.arange(2 * total, 0, -1).double()
    curve = [(rank + 1, 2 * rank + 1) for rank in range(total)]  # hits and rank at every hit
    points = [max(h / r for h, r in curve if 10 * h >= t * total) for t in range(11)]
    assert average_precision(scores, found, eleven_point=True) == pytest.approx(sum(points) / 11)


def test_what_was_not_found_counts():
    # Of 6 to find: recalls 1/6, 2/6 and 3/6.
    assert average_precision(SCORES, hits(1, 3, 4), total=6) == pytest.approx((1 + 3 / 4 + 3 / 4) / 6)
    eleven = average_precision(SCORES, hits(1, 3, 4), total=6, eleven_point=True)
    assert eleven == pytest.approx((2 * 1 + 4 * 3 / 4) / 11)
    assert average_precision(SCORES, hits(), total=2) == 0
    assert average_precision(SCORES[:0], hits()[:0], total=2) == 0
    assert average_precision(SCORES[:0], hits()[:0], total=2, eleven_point=True) == 0


def test_order_is_by_score_and_equal_scores_keep_theirs():
    shuffled = torch.tensor([2, 0, 4, 1, 3])
    assert average_precision(SCORES[shuffled], hits(1, 3, 4)[shuffled]) == pytest.approx(2.5 / 3)
    equal = torch.zeros(100)
    first = torch.arange(100) == 0
    assert average_precision(equal, first) == 1
    assert average_precision(equal, first.flip(0)) == pytest.approx(1 / 100)


def test_never_below_the_curve_without_its_envelope():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.rand(40, generator=generator).double()
        positive = torch.rand(40, generator=generator) < 0.3
        plain = average_precision_score(positive.numpy(), scores.numpy())
        ours = average_precision(scores, positive)
        assert plain - 1e-12 <= ours <= plain + 0.3
    assert average_precision(scores, positive) != pytest.approx(plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_precision(SCORES, hits(1)[:4]), r"got \[5\] and torch.bool \[4\]"),
        (lambda: average_precision(SCORES, hits(1).long()), r"got \[5\] and torch.int64 \[5\]"),
        (lambda: average_precision(SCORES[None], hits(1)[None]), r"got \[1, 5\]"),
        (lambda: average_precision(SCORES, hits()), "0 positives among 0 to find"),
        (lambda: average_precision(SCORES, hits(1, 2), total=1), "2 positives among 1 to find"),
        (lambda: average_precision(SCORES * math.nan, hits(1)), "hold NaN or infinity"),
    ],
)
def test_wrong_inputs(call, message):
    with pytest.raises(ValueError, match=message):
        call()
