"""Groups of like length give what the padded batch gives, without its padding."""

import pytest
import torch

from encoders.text.lengths import check_ids, check_length, in_length_groups

TABLE = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def padded(lengths, columns=None):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor(lengths)
    columns = columns or int(lengths.max())
    mask = (torch.arange(columns) < lengths[:, None]).long()
    ids = torch.randint(1, 50, mask.shape, generator=generator)
    return {"input_ids": ids, "attention_mask": mask}


def sums(view, table=TABLE):
    """Of each row's tokens, in their places."""
    ids, mask = view["input_ids"], view["attention_mask"]
    places = torch.arange(1, ids.shape[1] + 1)
    return (table[ids] * (mask * places)[..., None]).sum(1)


class Seen:
    """`sums` that remembers the shapes it was given."""

    def __init__(self):
        self.shapes, self.rates = [], []

    def __call__(self, view):
        self.shapes.append(tuple(view["input_ids"].shape))
        self.rates.append(view.get("dropout"))
        assert view["attention_mask"].shape == view["input_ids"].shape
        return sums(view)


@pytest.mark.parametrize(
    ("lengths", "size", "shapes"),
    [
        ([5, 2, 9, 1, 7], 2, [(2, 2), (2, 7), (1, 9)]),
        ([5, 2, 9, 1, 7, 3, 3], 3, [(3, 3), (2, 5), (2, 9)]),  # as equal as they can be
        ([5, 2, 9], 3, [(3, 9)]),
        ([4, 4, 4], 2, [(3, 4)]),
        ([3], 1, [(1, 3)]),
    ],
)
def test_groups_are_cut_to_their_longest(lengths, size, shapes):
    view, seen = padded(lengths, columns=12), Seen()
    found = in_length_groups(seen, view, size)
    assert seen.shapes == shapes
    torch.testing.assert_close(found, sums(view))


def test_gradients_flow():
    view = padded([9, 3, 5, 1, 9, 2, 4])
    grads = []
    for size in (2, 7):
        table = TABLE.clone().requires_grad_()
        in_length_groups(lambda part, table=table: sums(part, table), view, size).pow(2).sum().backward()
        grads.append(table.grad)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().sum() > 0


def test_other_tensors_go_with_their_rows():
    seen = Seen()
    view = padded([5, 2, 9, 1, 7]) | {"dropout": torch.arange(5.0)}
    in_length_groups(seen, view, 2)
    assert [rates.tolist() for rates in seen.rates] == [[3, 1], [0, 4], [2]]


def test_a_token_after_a_gap_is_kept():
    view = padded([4, 4, 2])
    view["attention_mask"][0] = torch.tensor([1, 0, 0, 1])
    torch.testing.assert_close(in_length_groups(sums, view, 1), sums(view))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: in_length_groups(sums, padded([1, 2]), 0), "1 or more rows, not 0"),
        (lambda: check_ids(torch.tensor([[0, 9]]), 9), "token 9, but the encoder's vocabulary has 9"),
        (lambda: check_length(torch.zeros(1, 9), 8), "9 tokens is longer than the 8"),
    ],
)
def test_wrong_inputs(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_fits():
    check_ids(torch.tensor([[0, 8]]), 9)
    check_length(torch.zeros(1, 8), 8)
    check_length(torch.zeros(1, 8), None)
