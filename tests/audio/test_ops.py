"""Spectrogram operations against their definitions, sample by sample."""

import pytest
import torch
from torch.nn import functional

from encoders.audio import ops


def test_mixing_is_linear_in_power():
    x, other = torch.randn(2, 5, 1, 4, 6, dtype=torch.float64)
    share = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.9], dtype=torch.float64)
    mixed = ops.log_mixup_exp(x, other, share)
    s = share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed.exp(), (1 - s) * x.exp() + s * other.exp())
    assert torch.equal(mixed[0], x[0])


def test_resize_crop_is_interpolation_of_the_box_on_a_canvas():
    bands, frames, canvas = 16, 21, (1.25, 1.5)
    x = torch.randn(64, 1, bands, frames, dtype=torch.float64)
    u = torch.rand(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = ops.crop_boxes(u, bands, frames, canvas, (0.1, 1.6))
    found = ops.resize_crop(x, **boxes, canvas=canvas)
    rows, columns = int(canvas[0] * bands), int(canvas[1] * frames)
    top, left = (rows - bands) // 2, (columns - frames) // 2
    whole = torch.zeros(64, 1, rows, columns, dtype=torch.float64)
    whole[:, :, top : top + bands, left : left + frames] = x
    for i in range(64):
        t, l, h, w = (int(boxes[name][i]) for name in ("top", "left", "height", "width"))  # noqa: E741
        assert t + h <= rows
        assert l + w <= columns
        expected = functional.interpolate(
            whole[i : i + 1, :, t : t + h, l : l + w], (bands, frames), mode="bicubic", align_corners=True
        )
        torch.testing.assert_close(found[i : i + 1], expected)


def test_boxes_reach_their_ranges_and_every_place():
    u = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    boxes = ops.crop_boxes(u, 10, 20, (1.0, 1.5), (0.6, 1.5))
    assert boxes["height"].unique().tolist() == [6, 7, 8, 9, 10]
    assert boxes["width"].unique().tolist() == list(range(12, 31))[:-1]
    narrow = boxes["left"][boxes["width"] == 12]
    assert narrow.unique().tolist() == list(range(19))


def test_the_fade_is_a_straight_line():
    faded = ops.linear_fade(torch.zeros(2, 1, 3, 5), torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(faded[0, 0, 2], torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0]))
    torch.testing.assert_close(faded[1, 0, 0], torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]))


@pytest.mark.parametrize("axis", [2, 3])
def test_masks_hide_one_stretch(axis):
    x = torch.ones(3, 1, 10, 10)
    masked = ops.mask_stretch(x, torch.tensor([0.0, 0.2, 0.7]), torch.tensor([0.0, 0.3, 0.3]), axis)
    lines = masked[:, 0, :, 0] if axis == 2 else masked[:, 0, 0]
    assert lines.int().tolist() == [[1] * 10, [1, 1, 0, 0, 0, 1, 1, 1, 1, 1], [1] * 7 + [0] * 3]
    assert masked.sum() == 300 - 60


@pytest.mark.parametrize("length", [1, 2, 30])
def test_any_length_resizes(length):
    weights = ops.resize_weights(torch.tensor([3.0]), torch.tensor([float(length)]), 40, 0, 7)
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 7))
