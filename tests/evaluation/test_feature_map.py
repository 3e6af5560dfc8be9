"""The picture of the features: every sample is drawn, and the legend says what each colour is."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bt_multimodal.evaluation.feature_map import groups, places, shown
from bt_multimodal.evaluation.features import FeatureTable
from bt_multimodal.evaluation.report import plot_features


def labels_of(counts, unlabelled=0):
    return np.repeat([*range(len(counts)), -1], [*counts, unlabelled])


@pytest.mark.parametrize("unlabelled", [0, 7])
@pytest.mark.parametrize("classes", [0, 1, 2, 10, 11, 19, 20, 21, 100])
def test_every_sample_has_one_colour(classes, unlabelled):
    labels = labels_of([3] * classes, unlabelled)
    found = groups(labels, [f"class {i}" for i in range(classes)])
    assert (sum(group.chosen.astype(int) for group in found) == 1).all() if len(labels) else not found
    colours = [to_hex(group.colour) for group in found]
    assert len(set(colours)) == len(colours) == min(classes, 20) + (unlabelled > 0)
    assert [group.name for group in found[:1]] == ["unlabelled"] * (unlabelled > 0) or not unlabelled
    named = [group for group in found if group.name.startswith("class ")]
    assert len(named) == (classes if classes <= 20 else 19)
    for group in named:
        assert set(labels[group.chosen]) == {int(group.name.split()[1])}


def test_the_largest_of_many_classes_are_named():
    counts = [1] * 30
    counts[3] = counts[29] = 9
    names = [group.name for group in groups(labels_of(counts), [str(i) for i in range(30)])]
    assert names[0] == "11 other classes"
    assert {"3", "29"} <= set(names)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cat", "cat"), ("_private", "_private"), ("$x^2$", "$x^2$"), ("", '""'), (" ", '""'),
        ("two\nlines", "two lines"), ("K\u00e4se", "K\u00e4se"), ("\u043a\u043e\u0442", "\u043a\u043e\u0442"),
        ("\udcff.x", "\\udcff.x"), ("\U000f0000", "\\U000f0000"), ("back\\slash", "back\\slash"),
        ("a" * 32, "a" * 32), ("a" * 80, "a" * 23 + "\u2026" + "a" * 8), ("\x00", "\\x00"),
    ],
)  # fmt: skip
def test_names_in_the_legend(name, text):
    assert shown(name) == text


def drawn(monkeypatch, tmp_path, table):
    """The points of each axes, and the legend's texts and whether they are formulas."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw))
    )
    plot_features(table, table, tmp_path / "features.png")
    (figure,) = figures
    points = [sum(len(part.get_offsets()) for part in axes.collections) for axes in figure.axes]
    texts = figure.legends[0].get_texts()
    return points, [text.get_text() for text in texts], figure


def test_names_and_samples_of_the_picture(monkeypatch, tmp_path):
    names = ["_hidden", "$a_", "", "c\nd", "e" * 50, *map(str, range(20))]
    labels = torch.from_numpy(labels_of([2] * len(names), 5))
    table = FeatureTable(torch.randn(len(labels), 6), labels, names)
    points, texts, figure = drawn(monkeypatch, tmp_path, table)
    assert points == [len(labels)] * 2
    assert texts[:6] == ["unlabelled", "6 other classes", "_hidden", "$a_", '""', "c d"]
    assert figure.legends[0].get_title().get_text() == "25 classes"
    assert "55 held-out samples" in figure.axes[0].get_title()


@pytest.mark.parametrize("width", [1, 2, 8])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 40])
@pytest.mark.parametrize("what", ["different", "identical", "zero", "two places"])
def test_places_of_few_or_equal_samples(n, width, what):
    features = torch.randn(n, width, generator=torch.Generator().manual_seed(n))
    if what == "identical":
        features = torch.ones(n, width)
    elif what == "zero":
        features = torch.zeros(n, width)
    elif what == "two places":
        features = torch.ones(n, width) * (torch.arange(n) % 2 * 2 - 1)[:, None]
    found = places(features, 0)
    assert found.shape == (n, 2)
    assert np.isfinite(found).all()


def test_samples_that_are_not_finite_are_counted(monkeypatch, tmp_path):
    features = torch.randn(30, 4)
    features[3, 1], features[7, 0] = torch.nan, torch.inf
    table = FeatureTable(features, torch.arange(30) % 2, ["a", "b"])
    assert "2 not finite" in drawn(monkeypatch, tmp_path, table)[2].axes[0].get_title()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pictures_of_few_samples(monkeypatch, tmp_path, n):
    table = FeatureTable(torch.randn(n, 4), torch.arange(n), list("abc")[:n])
    points, texts, _ = drawn(monkeypatch, tmp_path, table)
    assert points == [n, n]
    assert texts == list("abc")[:n]
