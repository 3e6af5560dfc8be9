"""The bag of n-grams, against a loop over each text's."""

from collections import Counter

import pytest
import torch
from torch.nn import functional

from encoders.text.bag import BagOfNgrams

IDS = torch.tensor([[5, 6, 5, 7], [6, 5, 0, 0], [9, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def bag(ngrams=1, buckets=5000):
    torch.manual_seed(0)
    encoder = BagOfNgrams(buckets, ngrams, width=8)
    torch.nn.init.normal_(encoder.weight)
    return encoder


def test_single_tokens_by_hand():
    encoder = bag()
    table, weight = encoder.table.weight, functional.softplus(encoder.weight)
    expected = []
    for row, n in zip(IDS.tolist(), MASK.sum(1).tolist(), strict=True):
        total = sum(weight[i] for i in row[:n])
        expected.append(sum(table[i] * weight[i] for i in row[:n]) / total)
    found = encoder({"input_ids": IDS, "attention_mask": MASK})
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("ngrams", [1, 2, 3, 6])
def test_a_text_has_its_own_ngrams_and_padding_none(ngrams):
    encoder = bag(ngrams)
    codes, lengths = encoder._ngrams(IDS, MASK.bool())
    counts = [sum(max(0, length - n + 1) for n in range(1, ngrams + 1)) for length in (4, 2, 1)]
    assert lengths.tolist() == counts
    for i, own in enumerate(codes.split(counts)):
        alone = encoder._ngrams(
            IDS[i : i + 1, : int(MASK[i].sum())], MASK[i : i + 1, : int(MASK[i].sum())].bool()
        )
        assert torch.equal(own.sort().values, alone[0].sort().values)


def test_the_same_pair_has_the_same_row_and_order_matters():
    encoder = bag(2, buckets=2**20)

    def pairs(*ids):
        return encoder._ngrams(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0][len(ids) :]

    assert pairs(5, 6, 7, 5, 6)[0] == pairs(5, 6, 7, 5, 6)[3] == pairs(5, 6)[0]
    assert pairs(5, 6)[0] != pairs(6, 5)[0]
    # All pairs of 300 tokens spread over the table as if at random: 90,000 in 2^20 rows.
    ids = torch.cartesian_prod(torch.arange(300), torch.arange(300))
    rows = encoder._ngrams(ids, torch.ones(len(ids), 2, dtype=torch.bool))[0].view(-1, 3)[:, 2]
    shared = sum(n - 1 for n in Counter(rows.tolist()).values())
    assert shared == pytest.approx(90_000 - 2**20 * (1 - (1 - 2**-20) ** 90_000), rel=0.1)


def test_padding_changes_nothing():
    encoder = bag(3)
    padded = torch.nn.functional.pad(IDS, (0, 7)), torch.nn.functional.pad(MASK, (0, 7))
    torch.testing.assert_close(
        encoder({"input_ids": padded[0], "attention_mask": padded[1]}),
        encoder({"input_ids": IDS, "attention_mask": MASK}),
    )


def test_gradients_reach_what_is_looked_up():
    encoder = bag(2)
    encoder({"input_ids": IDS, "attention_mask": MASK}).square().sum().backward()
    assert encoder.table.weight.grad[5].any()
    assert not encoder.table.weight.grad[0].any()
    assert encoder.weight.grad[5] != 0


def test_wrong_sizes():
    with pytest.raises(ValueError, match="1 or more, not 0, 1 and 8"):
        BagOfNgrams(0, 1, 8)
