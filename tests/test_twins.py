"""The twins: two forward passes, pytrees as views, pairs of encoders, and the errors that help."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from bt_multimodal import BarlowTwins, BarlowTwinsLoss, Headless, LossTerms, Projector


class Encoder(nn.Module):
    """Mean over a sequence of any length, then linear; remembers the shapes it saw."""

    def __init__(self, n_in=4, features_dim=6):
        super().__init__()
        self.linear, self.features_dim, self.seen = nn.Linear(n_in, features_dim), features_dim, []

    def forward(self, view):
        self.seen.append(list(view["x"].shape))
        return self.linear(view["x"].mean(1)).tanh()


class Gives(nn.Module):
    """Claims ``features_dim`` and gives ``output``."""

    def __init__(self, features_dim, output):
        super().__init__()
        self.features_dim, self.output = features_dim, output

    def forward(self, view):
        return self.output


def view(n=8, length=3, width=4, seed=0):
    return {"x": torch.randn(n, length, width, generator=torch.Generator().manual_seed(seed))}


def test_two_passes_and_the_loss_between():
    twins = BarlowTwins(Encoder(), Projector([6, 5, 5]), BarlowTwinsLoss(lambd=0.1))
    first, second = view(length=3), view(length=7, seed=1)
    terms = twins(first, second)
    assert twins.encoder.seen == [[8, 3, 4], [8, 7, 4]]
    assert isinstance(terms, LossTerms)
    expected = twins.loss(*(twins.projector(twins.encoder(v)) for v in (first, second)))
    torch.testing.assert_close(terms, expected)
    terms.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in twins.parameters())


def test_batch_norm_sees_each_view_on_its_own():
    twins = BarlowTwins(Encoder(), Projector([6, 5, 5]))
    twins(view(), view(seed=1))
    assert twins.projector.layers[1].num_batches_tracked == 2


def test_the_loss_is_the_default_one():
    assert repr(BarlowTwins(Encoder(), Projector([6, 5])).loss) == repr(BarlowTwinsLoss())


def test_a_bare_loop_learns():
    torch.manual_seed(0)
    twins = BarlowTwins(Encoder(), Projector([6, 8, 8]))
    optimizer, losses = torch.optim.SGD(twins.parameters(), 0.1), []
    for step in range(30):
        x = view(32, seed=step)["x"]
        terms = twins({"x": x}, {"x": x + 0.1 * torch.randn_like(x)})
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        losses.append(terms.total.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_paired_modalities():
    second = Encoder(9, 7)
    twins = BarlowTwins(Encoder(), Projector([6, 5]), None, second, Projector([7, 5]))
    first_view, second_view = view(), view(width=9)
    twins(first_view, second_view).total.backward()
    assert (twins.encoder.seen, second.seen) == ([[8, 3, 4]], [[8, 3, 9]])
    assert all(p.grad is not None for p in twins.parameters())


def test_asymmetry():
    torch.manual_seed(0)
    encoder, projector = Encoder().double(), Projector([6, 5]).double()
    predictor = Projector([5, 5, 5]).double()
    twins = BarlowTwins(encoder, projector, None, predictor=predictor, stop_gradient=True)
    first, second = ({"x": view(seed=s)["x"].double()} for s in (1, 2))
    with torch.no_grad():
        target = projector(encoder(second))  # a constant
    expected = BarlowTwinsLoss()(predictor(projector(encoder(first))), target)
    terms = twins(first, second)
    torch.testing.assert_close(terms.total, expected.total)  # with gradients and without
    parameters = [*twins.parameters()]
    grads, wanted = (torch.autograd.grad(t.total, parameters) for t in (terms, expected))
    torch.testing.assert_close(grads, wanted)
    moving = BarlowTwins(encoder, projector, None, predictor=predictor)(first, second)
    others = torch.autograd.grad(moving.total, parameters)
    torch.testing.assert_close(moving.total, terms.total)
    assert not torch.allclose(others[0], grads[0])


def test_headless():
    network = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 3)))
    hidden = network[0]
    x = torch.randn(2, 4)
    encoder = Headless(network, 6, head="1.1")
    assert encoder.features_dim == 6
    torch.testing.assert_close(encoder(x), hidden(x).relu())
    torch.testing.assert_close(Headless(hidden, 6)(x), hidden(x))


ONE_ENCODER = "come together"
CONSTRUCTION = [
    (lambda: BarlowTwins(nn.Linear(4, 6), Projector([6, 5])), "Linear has none: set self.features_dim = ..."),
    (lambda: BarlowTwins(nn.Linear(4, 6), Projector([6, 5])), "bt_multimodal.Headless(module, features_dim)"),
    (lambda: BarlowTwins(Gives("6", None), Projector([6, 5])), "Gives has '6'"),
    (lambda: BarlowTwins(Gives(True, None), Projector([6, 5])), "has True"),
    (lambda: BarlowTwins(Gives(0, None), Projector([6, 5])), "has 0"),
    (lambda: BarlowTwins(Encoder(), Projector([7, 5])), "takes 7 features, Encoder returns 6"),
    (lambda: BarlowTwins(Encoder(), Projector([6, 5]), None, Encoder()), ONE_ENCODER),
    (lambda: BarlowTwins(Encoder(), Projector([6, 5]), None, None, Projector([6, 5])), ONE_ENCODER),
    (lambda: BarlowTwins(Encoder(), Projector([6, 5]), None, Encoder(4, 7), Projector([6, 5])), "returns 7"),
    (lambda: Headless(nn.Sequential(nn.Linear(4, 6)), 6, head="fc"), "Sequential has no submodule 'fc'"),
]


@pytest.mark.parametrize(("build", "message"), CONSTRUCTION)
def test_wrong_construction(build, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((torch.ones(4, 6),), "Gives must return a tensor [B, 6], not a tuple"),
        ({"x": torch.ones(4, 6)}, "not a dict"),
        (torch.ones(4, 7), "features_dim = 6 but returned [4, 7], not [B, 6]"),
        (torch.ones(4, 6, 2), "returned [4, 6, 2]"),
        (torch.ones(6), "returned [6]"),
    ],
)
def test_wrong_representation(output, message):
    twins = BarlowTwins(Gives(6, output), Projector([6, 5]))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        twins(view(), view())
    assert message in str(error.value)


HEAVY = ["lightning", "jsonargparse", "torchvision", "torchaudio"]
HEAVY += ["transformers", "datasets", "matplotlib", "sklearn"]


def test_importing_the_core_imports_nothing_heavy():
    script = f"import bt_multimodal, json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
