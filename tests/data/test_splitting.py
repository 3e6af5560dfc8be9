"""Stratified splits: sizes, proportions and repeatability."""

import pytest
import torch

from bt_multimodal.data.splitting import hold_out, stratified_split


@pytest.mark.parametrize(
    ("n", "share", "held"), [(100, 0.07, 7), (11, 0.2, 3), (5, 0.2, 1), (3, 0.0, 0), (4, 1.0, 4)]
)
def test_sizes(n, share, held):
    rest, out = stratified_split(torch.full((n,), -1), share, seed=0)
    assert (len(rest), len(out)) == (n - held, held)
    assert sorted([*rest.tolist(), *out.tolist()]) == list(range(n))
    assert rest.tolist() == sorted(rest.tolist())
    assert out.tolist() == sorted(out.tolist())


def test_the_split_is_balanced_random_and_repeatable():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=torch.Generator())]
    out = stratified_split(labels, 0.1, seed=0)[1]
    assert labels[out].bincount().tolist() == [5, 3, 2]
    assert out.equal(stratified_split(labels, 0.1, seed=0)[1])
    assert not out.equal(stratified_split(labels, 0.1, seed=1)[1])
    assert labels[stratified_split(labels, 0.15, seed=0)[1]].bincount().tolist() in ([8, 4, 3], [7, 5, 3])
    with pytest.raises(ValueError, match=r"1\.5"):
        stratified_split(labels, 1.5, seed=0)


def test_what_has_no_label_is_not_held_out():
    labels = torch.tensor([0, -1, 1, 0, -1, 1, 0, 1, 0, 1, -1, 0])
    rest, out = hold_out(labels, 0.3, seed=0)
    assert (labels[out] >= 0).all()
    assert sorted([*rest.tolist(), *out.tolist()]) == list(range(12))
    assert len(out) == 3
    for same in (torch.zeros(10, dtype=torch.int64), torch.full((10,), -1)):
        for mine, theirs in zip(hold_out(same, 0.3, 5), stratified_split(same, 0.3, 5), strict=True):
            assert mine.equal(theirs)
