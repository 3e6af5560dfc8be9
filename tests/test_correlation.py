"""The two forms as functions: their gradients by finite differences, and embeddings that have collapsed."""

import pytest
import torch

from bt_multimodal.correlation import direct_terms, gram_terms


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
