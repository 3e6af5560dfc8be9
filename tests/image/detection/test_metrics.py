"""Average precision of detections: by hand, and beside pycocotools."""

from pathlib import Path

import pytest
import torch

from encoders.image.detection.annotations import Picture, run_lengths
from encoders.image.detection.metrics import Detections, coco_ap, voc_ap


def picture(*objects):
    """Objects are (label, ignore, x1, y1, x2, y2)."""
    rows = torch.tensor(objects, dtype=torch.float32).view(-1, 6)
    return Picture(Path("a.jpg"), (100, 100), rows[:, 2:], rows[:, 0].long(), rows[:, 1].bool())


def found(*detections):
    """Detections are (label, score, x1, y1, x2, y2)."""
    rows = torch.tensor(detections, dtype=torch.float32).view(-1, 6)
    return Detections(rows[:, 2:], rows[:, 1], rows[:, 0].long())


BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def test_a_worked_example():
    # Class 1: three objects. Ranked: right, wrong (nothing there), right, so precision 1, 1/2, 2/3 and
    # recall 1/3, 1/3, 2/3: the area is 1/3 + 2/3 * 1/3 = 5/9. Class 2: one object, found: 1.
    pictures = [picture((1, 0, *BOX), (1, 0, *FAR)), picture((1, 0, *BOX), (2, 0, *FAR))]
    detections = [
        found((1, 0.9, *BOX), (1, 0.8, 20, 20, 30, 30)),
        found((1, 0.7, *BOX), (2, 0.1, *FAR)),
    ]
    figures = voc_ap(pictures, detections)
    assert figures == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75"), 100 * (5 / 9 + 1) / 2))
    # Eleven points: recalls 0, .1, .2, .3 have precision 1, recalls .4, .5, .6 have 2/3.
    eleven = voc_ap(pictures, detections, eleven_point=True)
    assert eleven["AP50"] == pytest.approx(100 * ((4 + 3 * 2 / 3) / 11 + 1) / 2)


def test_the_overlap_has_to_be_larger_than_the_threshold():
    # 8 of 10 columns: overlap 0.8, right at 0.5, ... 0.75, which are six of ten thresholds.
    figures = voc_ap([picture((1, 0, *BOX))], [found((1, 0.9, 0, 0, 8, 10))])
    assert figures == pytest.approx({"AP": 60, "AP50": 100, "AP75": 100})
    half = voc_ap([picture((1, 0, *BOX))], [found((1, 0.9, 0, 0, 5, 10))])
    assert half["AP50"] == 0


def test_a_second_detection_of_an_object_is_wrong():
    twice = [found((1, 0.9, *BOX), (1, 0.8, *BOX), (1, 0.7, *FAR))]
    figures = voc_ap([picture((1, 0, *BOX), (1, 0, *FAR))], twice)
    assert figures["AP50"] == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))


def test_difficult_objects_count_in_neither_way():
    pictures = [picture((1, 1, *BOX), (1, 0, *FAR))]
    # Detections twice, before the one that counts: as if it had not been there.
    assert voc_ap(pictures, [found((1, 0.9, *BOX), (1, 0.8, *BOX), (1, 0.7, *FAR))])["AP"] == 100
    # And it does not take the place of another class's object.
    assert voc_ap(pictures, [found((2, 0.9, *BOX))])["AP"] == 0
    with pytest.raises(ValueError, match="no picture shows an object to find"):
        voc_ap([picture((1, 1, *BOX))], [found()])


def test_nothing_found():
    nothing = dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    assert voc_ap([picture((1, 0, *BOX))], [found()]) == nothing
    assert coco_ap([picture((1, 0, *BOX))], [found()]) == nothing


def drawn(seed, crowds=False):
    """Objects on a grid, too far apart to be mistaken for each other, and shifted detections of them."""
    generator = torch.Generator().manual_seed(seed)
    pictures, detections = [], []
    for _ in range(30):
        cells = torch.randperm(9, generator=generator)[:4]
        corner = torch.stack([cells % 3, cells // 3], 1).float() * 30
        boxes = torch.cat([corner, corner + 20], 1)
        labels = torch.randint(1, 3, (4,), generator=generator)
        ignore = torch.zeros(4, dtype=torch.bool)
        pictures.append(Picture(Path("a.jpg"), (100, 100), boxes, labels, ignore))
        shifts = torch.rand(12, 4, generator=generator) * 6 - 3
        scores = torch.rand(12, generator=generator)
        detections.append(Detections(boxes.repeat(3, 1) + shifts, scores, labels.repeat(3)))
    return pictures, detections


@pytest.mark.parametrize("seed", [0, 1])
def test_close_to_pycocotools_where_the_rules_agree(seed):
    # Without neighbours to mistake, both match alike. COCO takes precision at 101 recalls and >= the
    # threshold; the whole area is within 1 % of that.
    pictures, detections = drawn(seed)
    ours, theirs = voc_ap(pictures, detections), coco_ap(pictures, detections)
    assert ours.keys() == theirs.keys()
    assert 20 < theirs["AP"] < 90
    for name in ours:
        assert ours[name] == pytest.approx(theirs[name], abs=1.0)


def test_coco_is_printed_nowhere_and_leaves_crowds_out(capsys):
    pictures = [picture((1, 1, *BOX), (1, 0, *FAR))]
    for detections in (found((1, 0.7, *FAR)), found((1, 0.9, *BOX), (1, 0.8, *BOX), (1, 0.7, *FAR))):
        assert coco_ap(pictures, [detections])["AP"] == pytest.approx(100)
    assert capsys.readouterr().out == ""


def test_masks_by_pycocotools():
    # The box is right, of the mask only the upper half is.
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    own = picture((1, 0, 10, 10, 30, 30))._replace(segments=[square])

    upper = run_lengths([[10, 10, 30, 10, 30, 22, 10, 22]], (100, 100))
    detection = found((1, 0.9, 10, 10, 30, 30))._replace(masks=[upper])
    figures = coco_ap([own], [detection], masks=True)
    assert figures["AP"] == pytest.approx(100)
    # 12 of 20 rows: an overlap of 0.6 passes three thresholds of ten.
    assert figures["mask AP"] == pytest.approx(30)
    assert (figures["mask AP50"], figures["mask AP75"]) == (pytest.approx(100), 0)
