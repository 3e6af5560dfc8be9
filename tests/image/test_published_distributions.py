"""The reference views' random parameters against the published distributions, on 10,000 draws.

Kolmogorov-Smirnov tests for what is continuous, binomial and chi-square tests for what is not. The draws are
the same in every run, so a right distribution does not fail by chance.
"""

import math

import pytest
import torch
from scipy.stats import binomtest, chisquare, ks_2samp, kstest, uniform
from torchvision.transforms import RandomResizedCrop

from bt_multimodal.draws import uniforms
from encoders.image import ops
from encoders.image.views import CROP_RATIO, ReferenceViews

N, P = 10_000, 0.001


@pytest.fixture(scope="module", params=[0, 1], ids=["first view", "second view"])
def drawn(request):
    views = ReferenceViews()
    return request.param, views.draw(
        uniforms(5, 3, torch.arange(N), request.param, views.draws), request.param
    )


def is_uniform(values, low, high):
    assert kstest(values.double().numpy(), uniform(low, high - low).cdf).pvalue > P


def has_rate(flags, rate):
    count = int(flags.sum())
    if rate in (0.0, 1.0):
        assert count == rate * len(flags)
    else:
        assert binomtest(count, len(flags), rate).pvalue > P


@pytest.mark.parametrize("size", [(500, 375), (300, 900)])
def test_crops_are_those_of_random_resized_crop(drawn, size):
    rows, columns = size
    ours = [
        ops.reference_crop_box(u, rows, columns, (0.08, 1.0), CROP_RATIO) for u in drawn[1]["crop"][:4000]
    ]
    torch.manual_seed(0)
    picture = torch.empty(3, rows, columns)
    theirs = [RandomResizedCrop.get_params(picture, [0.08, 1.0], list(CROP_RATIO)) for _ in range(4000)]
    for measure in (
        lambda top, left, height, width: height * width / (rows * columns),
        lambda top, left, height, width: math.log(width / height),
        lambda top, left, height, width: top / max(1, rows - height),
        lambda top, left, height, width: left / max(1, columns - width),
    ):
        assert ks_2samp([measure(*box) for box in ours], [measure(*box) for box in theirs]).pvalue > P


def test_colour_jitter(drawn):
    _, p = drawn
    jittered = (p["factors"] != 1).any(1)
    has_rate(jittered, 0.8)
    for factor, strength in zip(p["factors"][jittered].T, (0.4, 0.4, 0.2), strict=True):
        is_uniform(factor, 1 - strength, 1 + strength)
    is_uniform(p["hue"][jittered], -0.1, 0.1)
    assert not p["hue"][~jittered].any()
    orders = (p["order"] * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(orders) == 24
    assert chisquare(orders.numpy()).pvalue > P


def test_blur_and_the_rates_of_the_rest(drawn):
    view, p = drawn
    is_uniform(p["sigma"], 0.1, 2.0)
    has_rate(p["blur"], (1.0, 0.1)[view])
    has_rate(p["solarise"], (0.0, 0.2)[view])
    has_rate(p["grey"], 0.2)
    has_rate(p["flip"], 0.5)


def test_the_parameters_do_not_hang_together(drawn):
    _, p = drawn
    jittered = (p["factors"] != 1).any(1)
    columns = [*p["factors"][jittered].T, p["hue"][jittered], p["sigma"][jittered], p["crop"][jittered][:, 0]]
    correlation = torch.corrcoef(torch.stack(columns)).fill_diagonal_(0)
    assert correlation.abs().max() < 4 / math.sqrt(int(jittered.sum()))
