"""Philox against the published known answers; the draws depend on what they are for and nothing else."""

import pytest
import torch

from bt_multimodal.draws import philox, uniforms

# Salmon et al.'s Random123, kat_vectors: counter, key, expected words of philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, expected):
    k0, k1 = words(key)
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words(counter))
    assert [int(word) for word in philox((c0, c1, c2, c3), (k0, k1))] == words(expected)


def test_uniforms_are_the_generators_words():
    """The assignment of seed, epoch, index and view to key and counter is an on-disk format: pinned."""
    index = 7 + (3 << 32)
    block = [torch.tensor([word]) for word in (1, 9, 7, 3)]
    word = philox((block[0], block[1], block[2], block[3]), (5, 2))[2]
    got = uniforms(seed=5, epoch=2, index=torch.tensor([index]), view=9, count=8)[0, 6]
    assert got.item() == (int(word) >> 8) / 2**24


def test_uniform():
    u = uniforms(0, 0, torch.arange(20_000), 0, 6)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    flat = u.double().flatten()
    n = flat.numel()
    assert abs(flat.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    counts = torch.histc(flat, 64, 0, 1)
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert 30 < chi_square < 110  # 63 degrees of freedom: 63 +- 11
    # Columns (numbers of one sample) and neighbours (samples of one batch) are uncorrelated.
    limit = 5 / len(u) ** 0.5
    assert (torch.corrcoef(u.T) - torch.eye(6)).abs().max() < limit
    assert torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1].abs() < limit


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"view": 1}, {"index": torch.arange(1, 5001)}])
def test_each_purpose_has_its_own_numbers(change):
    base = {"seed": 0, "epoch": 0, "index": torch.arange(5000), "view": 0, "count": 1}
    first, second = uniforms(**base), uniforms(**{**base, **change})
    assert torch.corrcoef(torch.cat([first, second], 1).T)[0, 1].abs() < 5 / 5000**0.5


def test_batch_composition_does_not_matter():
    index = torch.tensor([0, 1, 17, 2**31, 2**32 + 1, 2**40 + 5])
    whole = uniforms(3, 4, index, 1, 7)
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniforms(3, 4, index[order], 1, 7), whole[order])
    for i in range(len(index)):
        assert torch.equal(uniforms(3, 4, index[i : i + 1], 1, 7), whole[i : i + 1])
    assert torch.equal(uniforms(3, 4, index[:3].int(), 1, 7), whole[:3])
    assert len(whole.unique(dim=0)) == len(index)  # also beyond 32 bits


def test_a_longer_draw_begins_with_the_shorter():
    index = torch.arange(5)
    assert torch.equal(uniforms(0, 0, index, 0, 11)[:, :3], uniforms(0, 0, index, 0, 3))
    assert uniforms(0, 0, index, 0, 0).shape == (5, 0)
