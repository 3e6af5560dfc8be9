"""The two forms as functions: their gradients by finite differences, and embeddings that have collapsed."""

import pytest
import torch

from bt_multimodal import BarlowTwinsLoss
from bt_multimodal.correlation import direct_terms, gram_terms, standardise
from bt_multimodal.loss_variants import AblatedLoss, CrossEntropyLoss


def terms_of(form, eps):
    if form == "gram":
        return lambda a, b: gram_terms(a, b, [len(a)], eps)
    return lambda a, b: direct_terms(a, b, len(a), eps)


@pytest.mark.parametrize("eps", [1e-5, 0.5], ids=["small-eps", "large-eps"])
@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize("only", ["first", "second", "both"])
def test_gradcheck(form, eps, only):
    """Each of the two terms has its own right gradient with respect to each of the two batches."""
    z = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2
    a = z[0].clone().requires_grad_(only != "second")
    b = (z[0] + z[1]).detach().requires_grad_(only != "first")
    terms = terms_of(form, eps)
    assert torch.autograd.gradcheck(terms, (a, b))
    assert torch.autograd.gradcheck(lambda a, b: terms(a, b)[0], (a, b))
    assert torch.autograd.gradcheck(lambda a, b: terms(a, b)[1], (a, b))


def test_the_definition():
    """Equations 1 and 2 with loops."""
    z = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = ((v - v.mean(0)) / (v.var(0, correction=0) + 1e-5).sqrt() for v in z)
    invariance = redundancy = 0.0
    for i in range(3):
        for j in range(3):
            c = sum((a[n, i] * b[n, j]).item() for n in range(7)) / 7
            invariance += (1 - c) ** 2 if i == j else 0
            redundancy += c**2 if i != j else 0
    for form in ("gram", "direct"):
        measured = [term.item() for term in terms_of(form, 1e-5)(z[0], z[1])]
        assert measured == pytest.approx([invariance, redundancy], rel=1e-12)


@pytest.mark.parametrize("form", ["gram", "direct"])
def test_dead_dimensions_are_finite(form):
    z = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(2))
    z[:, :, 4:] = 3.0
    z.requires_grad_()
    invariance, redundancy = terms_of(form, 1e-5)(z[0], z[1])
    (invariance + redundancy).backward()
    assert invariance.item() >= 2  # one for each dead dimension
    assert z.grad is not None
    assert z.grad.isfinite().all()
    everything = terms_of(form, 1e-5)(torch.ones(8, 6), torch.ones(8, 6))
    assert [term.item() for term in everything] == [6, 0]


LOSSES = {
    "gram": BarlowTwinsLoss(form="gram"), "direct": BarlowTwinsLoss(form="direct"),
    "redundancy": AblatedLoss(invariance=0.0), "features": AblatedLoss(normalise="features"),
    "none": AblatedLoss(normalise="none"), "cross-entropy": CrossEntropyLoss(),
}  # fmt: skip
D = 24
INPUTS = {
    "usual": lambda z: 3 * z + 1,
    "means of 1e4": lambda z: z + 1e4,
    "means of both signs": lambda z: z + 1e4 * torch.linspace(-2, 2, D),
    "one far column": lambda z: z + 1e5 * (torch.arange(D) == 3),
    "1e13": lambda z: z * 1e13,
    "1e18": lambda z: z * 1e18,
    "1e20": lambda z: z * 1e20,
    "up to the largest": lambda z: z / z.abs().max() * torch.finfo(torch.float32).max,
    "of every magnitude": lambda z: z * 10.0 ** torch.linspace(-20, 37, D),
    "1e-20": lambda z: z * 1e-20,
    "a dead column": lambda z: z * (torch.arange(D) != 2) + 1e6,
}


def value_and_grads(loss, z, dtype):
    z = [view.to(dtype).requires_grad_() for view in z]
    total = loss(*z).total
    return total.double(), [grad.double() for grad in torch.autograd.grad(total, z)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("what", INPUTS)
def test_columns_of_any_mean_and_magnitude(name, what):
    """float32 against float64 of the same numbers."""
    if name == "none" and what in ("1e13", "1e18", "1e20", "up to the largest", "of every magnitude"):
        pytest.skip("their squared covariances are beyond the numbers of float32")
    g = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 48, D, generator=g)
    z = [INPUTS[what](view).float() for view in (first, first + second)]
    if name == "redundancy" and what == "1e-20":
        pytest.skip("its fourth powers are below the numbers of float32")
    total, grads = value_and_grads(LOSSES[name], z, torch.float32)
    expected, expected_grads = value_and_grads(LOSSES[name], z, torch.float64)
    assert total.item() == pytest.approx(expected.item(), rel=2e-5)
    for found, grad in zip(grads, expected_grads, strict=True):
        # A gradient of 1e-39 has fewer digits in float32.
        few = 1e-3 if what in ("up to the largest", "of every magnitude") else 3e-5
        assert ((found - grad).norm() / grad.norm()).item() < few


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("factor", [1e3, 1e30, 1e-25])
def test_standardised_as_usual_whatever_the_magnitude(eps, factor):
    z = torch.randn(9, 5, generator=torch.Generator().manual_seed(1)) + 1e3
    expected = z.double() * factor
    centred = expected - expected.mean(0)
    expected = centred / (centred.square().mean(0) + eps).sqrt()
    torch.testing.assert_close(
        standardise((z.double() * factor).float(), 9, eps).double(), expected, rtol=1e-3, atol=1e-4
    )


def test_numbers_that_are_none_stay_visible():
    for bad in (torch.nan, torch.inf):
        z = torch.randn(2, 8, 5)
        z[0, 3, 2] = bad
        for name, loss in LOSSES.items():
            assert not loss(z[0], z[1]).total.isfinite(), name


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "gram"])
def test_second_derivatives(name):
    z = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: LOSSES[name](z[0], z[1]).total, (z,))
    far = (z.detach() * 1e12 + 1e15).requires_grad_()  # which takes the careful way
    grad = torch.autograd.grad(LOSSES[name](far[0], far[1]).total, far, create_graph=True)[0]
    if name != "none":
        (again,) = torch.autograd.grad(grad.mul(1e12).square().sum(), far)
        assert again.isfinite().all()
        assert again.abs().max() > 0


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize(
    "how",
    [
        lambda total, z: torch.autograd.grad(total(z), z, create_graph=True),
        lambda total, z: total(z).backward(create_graph=True),
        lambda total, z: torch.autograd.functional.hessian(total, z.detach()),
    ],
)
def test_the_gram_form_has_no_second_derivative_and_says_so(how):
    loss = BarlowTwinsLoss(form="gram")
    with pytest.raises(ValueError, match=r'no second derivative: use BarlowTwinsLoss\(form="direct"\)$'):
        how(lambda z: loss(z[0], z[1]).total, torch.randn(2, 4, 9, requires_grad=True))


@pytest.mark.parametrize("form", ["gram", "direct"])
def test_embeddings_that_are_not_contiguous_or_mixed(form):
    loss = BarlowTwinsLoss(form=form)
    z = torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    expected = value_and_grads(loss, z, torch.float64)
    views = [view.T.contiguous().T.requires_grad_() for view in z]
    total = loss(*views).total
    torch.testing.assert_close(total.detach(), expected[0].detach())
    torch.testing.assert_close(list(torch.autograd.grad(total, views)), expected[1])
    first, second = z[0].half().requires_grad_(), z[1].bfloat16().requires_grad_()
    total = loss(first, second).total
    assert total.dtype == torch.float32
    grads = torch.autograd.grad(total, [first, second])
    assert [grad.dtype for grad in grads] == [torch.float16, torch.bfloat16]
    wide = value_and_grads(loss, [first.detach(), second.detach()], torch.float64)
    torch.testing.assert_close([grad.double() for grad in grads], wide[1], rtol=2e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize(
    "transform",
    [
        lambda total, z: torch.func.grad(total)(z),
        lambda total, z: torch.func.vmap(total, in_dims=1)(z[:, None]),
        lambda total, z: torch.func.jvp(total, (z,), (z,)),
    ],
    ids=["grad", "vmap", "jvp"],
)
def test_transforms_of_functions_are_refused(form, transform):
    """None of them may give a number that leaves out a part."""
    loss = BarlowTwinsLoss(form=form)
    with pytest.raises(RuntimeError, match=r"setup_context|vmap"):
        transform(lambda z: loss(z[0], z[1]).total, torch.randn(2, 4, 9))
