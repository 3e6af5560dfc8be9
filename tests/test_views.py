"""Views survive what batches go through; two stages make them, whatever the batch."""

import pytest
import torch
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate

from bt_multimodal import Views
from bt_multimodal.draws import uniforms
from bt_multimodal.views import Drawn, draw_views, finish_views


class Crops:
    """A window of three numbers, then a gain; the gain of the second view is negative."""

    draws = 2

    def decode(self, raw):
        return torch.tensor(raw)

    def draw(self, u, view):
        return {"start": (u[:, 0] * 6).long(), "gain": (1 + u[:, 1]) * (-1 if view else 1)}

    def on_record(self, decoded, parameters):
        start = int(parameters["start"])
        return decoded[start : start + 3]

    def on_batch(self, data, parameters, view):
        assert (parameters["gain"] < 0).all() == bool(view)
        return {"x": data * parameters["gain"][:, None]}

    def clean(self, decoded):
        return decoded[:3]

    def clean_batch(self, data):
        return {"x": data}


INDEX = torch.tensor([4, 0, 9, 2**33])
DECODED = [torch.arange(8.0) + 10 * i for i in range(4)]
LABEL = torch.tensor([1, 0, -1, 2])


def made(rows, epoch=0, seed=1):
    batch = draw_views(Crops(), [DECODED[i] for i in rows], LABEL[rows], seed, epoch, INDEX[rows])
    return finish_views(Crops(), batch)


def test_collate_and_tree_map():
    samples = [Views({"x": torch.ones(2) * i}, [torch.zeros(3), torch.ones(1)], i) for i in range(3)]
    batch = default_collate(samples)
    assert isinstance(batch, Views)
    assert batch.first["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert [list(t.shape) for t in batch.second] == [[3, 3], [3, 1]]
    assert batch.label.tolist() == [0, 1, 2]
    doubled = tree_map(lambda t: t.double(), batch)
    assert isinstance(doubled, Views)
    assert doubled.first["x"].dtype == torch.float64
    half = Views(Drawn(torch.ones(2), {"gain": torch.ones(2)}), torch.ones(2), torch.ones(2))
    assert isinstance(tree_map(lambda t: t + 1, half).first, Drawn)


def test_two_stages():
    batch = draw_views(Crops(), DECODED, LABEL, 1, 5, INDEX)
    assert torch.equal(batch.label, LABEL)
    for view, half in enumerate((batch.first, batch.second)):
        expected = Crops().draw(uniforms(1, 5, INDEX, view, 2), view)
        assert all(torch.equal(half.parameters[name], value) for name, value in expected.items())
        for decoded, start, crop in zip(DECODED, expected["start"].tolist(), half.data, strict=True):
            assert torch.equal(crop, decoded[start : start + 3])
    views = finish_views(Crops(), batch)
    assert torch.equal(views.second["x"], batch.second.data * batch.second.parameters["gain"][:, None])
    assert not views.first["x"].requires_grad


def test_any_batch_gives_the_same_views():
    whole = made([0, 1, 2, 3])
    for rows in ([0], [3, 1], [2, 0, 1]):
        part = made(rows)
        assert torch.equal(part.first["x"], whole.first["x"][rows])
        assert torch.equal(part.second["x"], whole.second["x"][rows])
        assert torch.equal(part.label, whole.label[rows])


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 2}])
def test_another_epoch_or_seed_gives_other_views(change):
    rows = [0, 1, 2, 3]
    assert not torch.equal(made(rows).first["x"], made(rows, **change).first["x"])


class Gains(Crops):
    on_record = None


def test_without_a_record_stage_the_records_are_stacked():
    batch = draw_views(Gains(), DECODED, LABEL, 1, 0, INDEX)
    assert torch.equal(batch.first.data, torch.stack(DECODED))
    views = finish_views(Gains(), batch)
    assert torch.equal(views.second["x"], torch.stack(DECODED) * batch.second.parameters["gain"][:, None])


def test_ready_views_pass_through():
    views = Views(torch.ones(2), torch.zeros(2), torch.zeros(2))
    assert finish_views(Crops(), views) is views


class Sums(Crops):
    """Both views begin with one crop, summed once."""

    shared = 1

    def __init__(self):
        self.crops, self.sums = 0, 0

    def on_record(self, decoded, parameters):
        self.crops += 1
        return super().on_record(decoded, parameters)

    def common(self, data):
        self.sums += 1
        return data.cumsum(1)


def test_what_views_have_in_common_is_made_once():
    views = Sums()
    batch = draw_views(views, DECODED, LABEL, 1, 0, INDEX)
    assert batch.second.data is None
    made = finish_views(views, batch)
    assert (views.crops, views.sums) == (4, 1)
    for half, view in ((batch.first, made.first), (batch.second, made.second)):
        assert torch.equal(view["x"], batch.first.data.cumsum(1) * half.parameters["gain"][:, None])
