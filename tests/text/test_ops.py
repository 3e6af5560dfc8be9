"""What is done to batches of tokens, against loops over plain lists."""

import pytest
import torch

from encoders.text import ops

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, -1, -1, -1, -1], [-1] * 6], dtype=torch.int32)


def texts(ids):
    return [[i for i in row if i >= 0] for row in ids.tolist()]


def left_aligned(ids):
    there = ids >= 0
    return bool((there[:, :-1] | ~there[:, 1:]).all())


def test_deletion_leaves_those_whose_number_is_high():
    u = torch.tensor([[0.1, 0.9, 0.2, 0.7, 0.3, 0.61], [0.2, 0.1, 0.9, 0.9, 0.9, 0.9], [0.5] * 6])
    # Of the second text nothing would be left: the token with the highest number stays.
    assert texts(ops.delete(IDS, u, 0.6)) == [[6, 8, 10], [11], []]
    assert left_aligned(ops.delete(IDS, u, 0.6))
    assert torch.equal(ops.delete(IDS, u, 0.0), IDS)


def test_shuffling_is_a_sort_of_places_with_noise():
    u = torch.tensor([[0.9, 0.0, 0.5, 0.0, 0.99, 0.0], [0.9, 0.0, 0.0, 0.0, 0.0, 0.0], [0.5] * 6])
    # 0 + 2.7, 1, 2 + 1.5, 3, 4 + 2.97, 5 and 0 + 2.7, 1
    assert texts(ops.shuffle(IDS, u, 3.0)) == [[6, 5, 8, 7, 10, 9], [12, 11], []]
    assert torch.equal(ops.shuffle(IDS, u, 0.0), IDS)


def test_no_token_moves_by_the_distance_or_more():
    ids = torch.arange(200).expand(50, -1)
    moved = ops.shuffle(ids, torch.rand(50, 200, generator=torch.Generator().manual_seed(0)), 4.0)
    assert torch.equal(moved.sort(1).values, ids)
    assert 1 < (moved - ids).abs().max() < 4


def test_masking_takes_low_numbers_and_no_padding():
    u = torch.tensor([[0.1, 0.9, 0.14, 0.7, 0.3, 0.2], [0.2, 0.1, 0.1, 0.1, 0.1, 0.1], [0.0] * 6])
    assert ops.mask(IDS, u, 0.15, 3).tolist() == [[3, 6, 3, 8, 9, 10], [11, 3, -1, -1, -1, -1], [-1] * 6]


@pytest.mark.parametrize("span", [1, 2, 3, 5])
def test_spans_cover_their_share(span):
    ids = torch.full((400, 300), 7)
    u = torch.rand(ids.shape, generator=torch.Generator().manual_seed(span))
    covered = (ops.mask(ids, u, 0.3, 3, span) == 3).float()
    assert covered[:, span:].mean().item() == pytest.approx(0.3, abs=0.01)
    # Runs are as long as a span or longer, but for those that the end cuts.
    for row in covered[:50, : -span + 1 or None].tolist():
        runs = [len(run) for run in "".join("x" if c else " " for c in row).split()]
        assert all(run >= span for run in runs[:-1])


def test_noise_is_a_text_s_own():
    seeds = torch.tensor([3, 4, 3])
    u = ops.noise(seeds, 0, 40)
    assert torch.equal(u[0], u[2])
    assert not torch.equal(u[0], u[1])
    assert torch.equal(ops.noise(seeds, 0, 17), u[:, :17])  # not the batch's: longer texts add numbers
    assert not torch.equal(ops.noise(seeds, 1, 40), u)


def test_special_tokens_stand_around_each_text():
    view = ops.assemble(IDS[:, :], [1], [2, 4], 0)
    assert view["input_ids"].tolist() == [
        [1, 5, 6, 7, 8, 9, 10, 2, 4],
        [1, 11, 12, 2, 4, 0, 0, 0, 0],
        [1, 2, 4, 0, 0, 0, 0, 0, 0],
    ]
    assert view["attention_mask"].sum(1).tolist() == [9, 5, 3]
    assert view["input_ids"].dtype == view["attention_mask"].dtype == torch.int64


def test_padding_is_as_short_as_the_texts_allow():
    assert ops.assemble(IDS[1:], [1], [2], 0)["input_ids"].tolist() == [[1, 11, 12, 2], [1, 2, 0, 0]]


def test_a_text_of_nothing_is_one_of_padding():
    view = ops.assemble(IDS[1:], [], [], 9)
    assert view["input_ids"].tolist() == [[11, 12], [9, 9]]
    assert view["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert ops.assemble(IDS[2:], [], [], 9)["attention_mask"].tolist() == [[1]]
    assert (
        ops.assemble(torch.empty(2, 0, dtype=torch.int32), [1], [2], 0)["input_ids"].tolist() == [[1, 2]] * 2
    )
