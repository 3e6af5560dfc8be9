"""A batch in micro-batches: the whole batch's loss and gradient, random layers and buffers included."""

import pytest
import torch
from torch import nn

from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Projector
from bt_multimodal.micro_batches import embed_in_micro_batches


class Encoder(nn.Module):
    """Takes a dict; has dropout and BatchNorm."""

    features_dim = 6

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3)

    def forward(self, view):
        return self.dropout(self.norm(self.linear(view["x"]) * view["gain"])).tanh()


def views(n=10):
    g = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(n, 4, generator=g), "gain": torch.rand(n, 1, generator=g)} for _ in range(2)]


def twins(accumulate=1, encoder=None):
    torch.manual_seed(0)
    return BarlowTwins(
        encoder or Encoder(), Projector([6, 8, 12]), BarlowTwinsLoss(), accumulate=accumulate
    ).double()


def as_double(view):
    return {name: value.double() for name, value in view.items()}


def test_the_same_random_numbers_and_buffers_once():
    """Against the same parts, one after another, with all their activations kept."""
    first, second = map(as_double, views())
    found = twins(3)
    torch.manual_seed(5)
    terms = found(first, second)
    terms.total.backward()

    expected = twins()
    torch.manual_seed(5)
    z = []
    for view in (first, second):
        parts = zip(view["x"].tensor_split(3), view["gain"].tensor_split(3), strict=True)
        z.append(
            torch.cat([expected.projector(expected.encoder({"x": x, "gain": gain})) for x, gain in parts])
        )
    total = expected.loss(*z).total
    total.backward()

    torch.testing.assert_close(terms.total, total, rtol=1e-12, atol=0)
    for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        # The parts' gradients are added in another order: an entry may be small beside what it is a sum of.
        largest = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12 * largest)
    for ours, theirs in zip(found.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_without_gradients():
    model = twins(3).eval()
    first, second = map(as_double, views())
    with torch.no_grad():
        terms = model(first, second)
    assert not terms.total.requires_grad
    torch.testing.assert_close(terms.total, twins().eval()(first, second).total, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("view", "count", "message"),
    [
        ({"x": torch.ones(3, 4)}, 4, "3 samples cannot be split into 4 micro-batches"),
        ({"x": torch.ones(3, 4), "gain": torch.ones(2, 1)}, 2, r"differ in their batch size: \[2, 3\]"),
    ],
)
def test_wrong_inputs(view, count, message):
    with pytest.raises(ValueError, match=message):
        embed_in_micro_batches(lambda part: part["x"], view, count, nn.Identity())
    with pytest.raises(ValueError, match="accumulate must be 1 or more micro-batches, not 0"):
        twins(0)


class Plain(nn.Module):
    features_dim = 6

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, view):
        return self.linear(view).tanh()


def test_second_derivatives():
    """Of a network without BatchNorm, whose result does not depend on the micro-batches."""
    found = []
    for count in (1, 3):
        torch.manual_seed(0)
        model = BarlowTwins(Plain(), nn.Linear(6, 5), BarlowTwinsLoss(form="direct"), accumulate=count)
        model.double()
        weights = list(model.parameters())
        first, second = (view["x"].double() for view in views())
        grads = torch.autograd.grad(model(first, second).total, weights, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in grads), weights, allow_unused=True))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][0].abs().max() > 0
