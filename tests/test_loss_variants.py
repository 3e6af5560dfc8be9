"""The published ablations of the loss, each against its definition written out entry by entry."""

import math

import pytest
import torch

from bt_multimodal import BarlowTwinsLoss
from bt_multimodal.loss_variants import AblatedLoss, CrossEntropyLoss

N, D = 7, 4


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(N, D, generator=g, dtype=torch.float64) * 3 + 5
    return z, z + torch.randn(N, D, generator=g, dtype=torch.float64)


def standardised(z):
    return (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()


def matrix(a, b):
    return [[sum(a[n, i] * b[n, j] for n in range(N)) / N for j in range(D)] for i in range(D)]


def entries(c):
    return [c[i][i] for i in range(D)], [c[i][j] for i in range(D) for j in range(D) if i != j]


def test_nothing_taken_away_is_the_loss(pair):
    z = [v.clone().requires_grad_() for v in pair]
    terms, expected = AblatedLoss(lambd=0.02, scale=0.5)(*z), BarlowTwinsLoss(lambd=0.02, scale=0.5)(*z)
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=0)
    grads, wanted = (torch.autograd.grad(t.total, z) for t in (terms, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-10, atol=1e-14)


def test_redundancy_alone(pair):
    terms = AblatedLoss(lambd=0.02, scale=0.5, invariance=0.0)(*pair)
    assert terms.total == pytest.approx(0.5 * 0.02 * terms.redundancy.item(), rel=1e-12)
    whole = BarlowTwinsLoss(form="direct")(*pair)
    torch.testing.assert_close(terms.invariance, whole.invariance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalise", ["features", "none"])
def test_other_normalisations(pair, normalise):
    if normalise == "none":
        a, b = (z - z.mean(0) for z in pair)
    else:
        a, b = (standardised(z) for z in pair)
        a, b = (math.sqrt(D) * z / z.norm(dim=1, keepdim=True) for z in (a, b))
        assert a.norm(dim=1).tolist() == pytest.approx([math.sqrt(D)] * N)
    diagonal, rest = entries(matrix(a, b))
    terms = AblatedLoss(lambd=0.02, normalise=normalise)(*pair)
    assert terms.invariance == pytest.approx(float(sum((1 - c) ** 2 for c in diagonal)), rel=1e-12)
    assert terms.redundancy == pytest.approx(float(sum(c**2 for c in rest)), rel=1e-12)


def test_cross_entropy(pair):
    diagonal, rest = entries(matrix(*(standardised(z) for z in pair)))
    assert min(rest) < 0 < max(rest)  # so that the clamp has something to do
    t, lambd = 0.3, 0.7
    first = -math.log(sum(math.exp(c / t) for c in diagonal))
    second = math.log(sum(math.exp(max(c, 0) / t) for c in rest))
    terms = CrossEntropyLoss(lambd, t, scale=2.0)(*pair)
    assert [term.item() for term in terms] == pytest.approx([2 * (first + lambd * second), first, second])


@pytest.mark.parametrize("loss", [AblatedLoss(normalise="features"), CrossEntropyLoss()])
def test_gradients(pair, loss):
    z = [v.clone().requires_grad_() for v in pair]
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b).total, z)


@pytest.mark.parametrize("loss", [AblatedLoss(), CrossEntropyLoss()])
def test_arithmetic_is_in_float32_under_autocast(pair, loss):
    z = [v.to(torch.bfloat16) for v in pair]
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(*z)
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.total, loss(*(v.float() for v in z)).total)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AblatedLoss(normalise="rows"), "not 'rows'"),
        (lambda: AblatedLoss(invariance=-1.0), "invariance=-1.0"),
        (lambda: AblatedLoss(lambd=-1.0), "lambd=-1.0"),
        (lambda: CrossEntropyLoss(temperature=0.0), "temperature=0.0"),
        (lambda: CrossEntropyLoss(scale=0.0), "scale=0.0"),
        (lambda: CrossEntropyLoss()(torch.ones(3, 1), torch.ones(3, 1)), "width 1"),
        (lambda: AblatedLoss()(torch.ones(3, 2), torch.ones(3, 3)), r"[3, 2] and [3, 3]"),
        (lambda: AblatedLoss()(torch.ones(1, 2), torch.ones(1, 2)), "global batch of 1"),
    ],
)
def test_wrong_inputs(build, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build()
    assert message in str(error.value)
