"""The picture of detections: what is drawn, and where."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.image.detection.annotations import Picture
from encoders.image.detection.metrics import Detections
from encoders.image.detection.picture import draw_detections


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "a.png")
    box = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    return Picture(tmp_path / "a.png", (48, 64), box, torch.tensor([1]), torch.tensor([False]))


def drawn(picture, scores, path):
    boxes = torch.tensor([[30.0, 8.0, 50.0, 24.0], [30.0, 28.0, 50.0, 44.0]])[: len(scores)]
    found = Detections(boxes, torch.tensor(scores), torch.ones(len(scores), dtype=torch.int64))
    draw_detections([picture], [found], ["cat"], path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    orange = (abs(pixels - [255, 165, 0]).sum(-1) < 10).nonzero()[0]
    return pixels, orange - (pixels.shape[0] // 2 + 2)  # rows of the lower picture


def test_sure_detections_or_the_surest(picture, tmp_path):
    scale = 320 / 64
    pixels, rows = drawn(picture, [], tmp_path / "none.png")
    assert not len(rows)
    assert (abs(pixels - [0, 255, 0]).sum(-1) < 10).any()  # the object itself
    _, both = drawn(picture, [0.9, 0.6], tmp_path / "both.png")
    assert both.min() == pytest.approx(8 * scale, abs=4)
    assert both.max() == pytest.approx(44 * scale, abs=4)
    for scores in ([0.9, 0.4], [0.2, 0.1]):
        _, one = drawn(picture, scores, tmp_path / "one.png")
        assert one.max() == pytest.approx(24 * scale, abs=4)
