"""The projector's layers, and what it refuses."""

import pytest
import torch
from torch import nn

from bt_multimodal import Projector


def kinds(module):
    return [type(layer).__name__ for layer in module.layers]


def test_layers():
    projector = Projector([5, 7, 7, 3])
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds(projector) == [*hidden, *hidden, "Linear"]
    assert kinds(Projector([5, 7, 7, 3], batch_norm=False)) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds(Projector((5, 3))) == ["Linear"]
    assert all(layer.bias is None for layer in projector.modules() if isinstance(layer, nn.Linear))
    assert (projector.in_features, projector.out_features) == (5, 3)
    assert sum(p.numel() for p in projector.parameters()) == 5 * 7 + 7 * 7 + 7 * 3 + 4 * 7


@pytest.mark.parametrize("batch_norm", [True, False])
def test_forward_is_the_formula(batch_norm):
    projector, x = (
        Projector([5, 7, 3], batch_norm),
        torch.randn(9, 5, generator=torch.Generator().manual_seed(0)),
    )
    hidden = x @ projector.layers[0].weight.T
    if batch_norm:
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(projector(x), hidden.relu() @ projector.layers[-1].weight.T)


def test_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in Projector([2048, 8192, 8192, 8192]).parameters()) == 151_027_712


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "two or more positive widths, got []"),
        ([8], "[8]"),
        ([8, 0], "[8, 0]"),
        ([8, -1, 4], "[8, -1, 4]"),
        ([8, 2.5], "[8, 2.5]"),
        (["8", "16"], "['8', '16']"),
    ],
)
def test_wrong_sizes(sizes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Projector(sizes)
    assert message in str(error.value)
