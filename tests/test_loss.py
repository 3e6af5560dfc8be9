"""The loss against the authors' numbers, in every form and precision, and what it refuses."""

import pytest
import torch

from bt_multimodal import BarlowTwinsLoss, LossTerms
from bt_multimodal.loss import gram_is_cheaper

FORMS = ["gram", "direct"]


def value_and_grads(loss, z_first, z_second):
    z_first, z_second = z_first.clone().requires_grad_(), z_second.clone().requires_grad_()
    terms = loss(z_first, z_second)
    return terms, torch.autograd.grad(terms.total, [z_first, z_second])


def relative(measured, expected):
    return ((measured.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(12, 20, generator=g) * 3 + 5
    return z, z + torch.randn(12, 20, generator=g)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", ["8x16", "64x48", "32x128"])
def test_equals_the_reference(reference, size, form):
    golden = reference("loss")
    z, value = [golden[f"{size}_z_{v}"] for v in "ab"], golden[f"{size}_value"]
    expected = [golden[f"{size}_grad_{v}"] for v in "ab"]

    terms, grads = value_and_grads(BarlowTwinsLoss(form=form), *z)
    assert terms.total.dtype == torch.float64
    assert relative(terms.total, value) < 1e-10
    assert max(map(relative, grads, expected)) < 1e-10

    terms32, grads32 = value_and_grads(BarlowTwinsLoss(form=form), *(v.float() for v in z))
    assert terms32.total.dtype == grads32[0].dtype == torch.float32
    assert relative(terms32.total, terms.total) < 1e-5
    assert max(map(relative, grads32, grads)) < 1e-5


@pytest.mark.parametrize(("n", "d"), [(4, 32), (32, 4)])
def test_auto_is_the_cheaper_form(n, d):
    z = torch.randn(2, n, d, generator=torch.Generator().manual_seed(1))
    auto, grads = value_and_grads(BarlowTwinsLoss(), z[0], z[1])
    same = {}
    for form in FORMS:
        terms, expected = value_and_grads(BarlowTwinsLoss(form=form), z[0], z[1])
        same[form] = all(torch.equal(g, e) for g, e in zip(grads, expected, strict=True))
        torch.testing.assert_close(auto, terms, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)
    assert same["gram" if gram_is_cheaper(n, d) else "direct"]
    assert gram_is_cheaper(n, d) == (n < d)


@pytest.mark.parametrize("form", FORMS)
def test_terms_make_the_total(pair, form):
    terms = BarlowTwinsLoss(lambd=0.3, scale=0.25, form=form)(*(z.double() for z in pair))
    assert isinstance(terms, LossTerms)
    torch.testing.assert_close(terms.total, 0.25 * (terms.invariance + 0.3 * terms.redundancy))


@pytest.mark.parametrize("form", FORMS)
def test_identical_views_with_independent_dimensions(form):
    """C is the identity: both terms vanish. Opposite views: C_ii = -1, four a dimension."""
    z = torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[0]
    z = torch.linalg.qr(z - z.mean(0))[0] * 100
    loss = BarlowTwinsLoss(form=form, eps=0.0)
    torch.testing.assert_close(
        list(loss(z, z)), [torch.zeros((), dtype=torch.float64)] * 3, rtol=0, atol=1e-12
    )
    assert loss(z, -z + 7).invariance.item() == pytest.approx(16)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_reach_the_loss(pair, form):
    loss = BarlowTwinsLoss(form=form)
    expected, expected_grads = value_and_grads(loss, *pair)
    with torch.autocast("cpu", torch.bfloat16):
        terms, grads = value_and_grads(loss, *pair)
    assert all(t.dtype == torch.float32 and torch.equal(t, e) for t, e in zip(terms, expected, strict=True))
    assert all(torch.equal(g, e) for g, e in zip(grads, expected_grads, strict=True))

    half = [z.bfloat16() for z in pair]
    expected, expected_grads = value_and_grads(loss, *(z.float() for z in half))
    half = [z.requires_grad_() for z in half]
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(*half)
    assert all(t.dtype == torch.float32 and torch.equal(t, e) for t, e in zip(terms, expected, strict=True))
    grads = torch.autograd.grad(terms.total, half)
    assert all(torch.equal(g, e.bfloat16()) for g, e in zip(grads, expected_grads, strict=True))


def test_mixed_dtypes_take_the_wider(pair):
    assert BarlowTwinsLoss()(pair[0].half(), pair[1].double()).total.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "fast"}, "'auto', 'gram' or 'direct', not 'fast'"),
        ({"form": None}, "not None"),
        ({"lambd": -0.1}, "lambd=-0.1"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"scale": -2.0}, "scale > 0"),
        ({"eps": -1e-5}, "eps=-1e-05"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BarlowTwinsLoss(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("form", ["auto", *FORMS])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.ones(4, 3), torch.ones(4, 2), "[4, 3] and [4, 2]"),
        (torch.ones(4, 3), torch.ones(5, 3), "[4, 3] and [5, 3]"),
        (torch.ones(4), torch.ones(4), "[n, D]"),
        (torch.ones(4, 3, 2), torch.ones(4, 3, 2), "[4, 3, 2]"),
        (torch.ones(4, 3).int(), torch.ones(4, 3), "torch.int32 and torch.float32"),
        (torch.ones(4, 3), torch.ones(4, 3).bool(), "floating point"),
        (torch.ones(4, 3).cfloat(), torch.ones(4, 3).cfloat(), "torch.complex64"),
        (torch.ones(1, 3), torch.ones(1, 3), "2 samples or more, got a global batch of 1"),
        (torch.ones(0, 3), torch.ones(0, 3), "got a global batch of 0"),
        (torch.ones(4, 0), torch.ones(4, 0), "a width of 1 or more, got [4, 0]"),
        (None, torch.ones(4, 3), "tensors [n, D]; got NoneType and Tensor"),
        (torch.ones(4, 3), [[1.0]], "got Tensor and list"),
        (torch.ones(4, 3), torch.ones(4, 3, device="meta"), "on one device, got cpu and meta"),
    ],
)
def test_wrong_embeddings(form, first, second, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BarlowTwinsLoss(form=form)(first, second)
    assert message in str(error.value)
