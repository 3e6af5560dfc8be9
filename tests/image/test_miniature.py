"""Generated data sets: what is in them, and that the readers of the real ones read it."""

import numpy as np
import pytest
import torch
from PIL import Image

from bt_multimodal.data.records import DataError, open_source
from encoders.image.detection.annotations import open_annotated
from encoders.image.miniature import _scene, make_folder, make_miniature, make_scenes
from encoders.image.modality import IMAGES
from encoders.image.voc import open_voc

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    for split, shade in (("train", 0), ("test", 60)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for k in range(20):
                shaded = tuple(max(c - shade - k, 0) for c in colour)
                Image.new("RGB", (8, 8), shaded).save(root / split / name / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def splits(source):
    return open_source(str(source), IMAGES, require_labels=True)


def test_a_folder_like_imagenets(splits, tmp_path):
    make_folder(splits, tmp_path / "made", per_class=(20, 5))
    made = open_source(str(tmp_path / "made"), IMAGES, require_labels=True)
    assert (len(made.train), len(made.test), made.held_out) == (40, 10, False)
    assert made.train.labels.bincount().tolist() == [20, 20]
    picture = Image.open(tmp_path / "made" / "train" / "red" / "red_00003.jpg")
    assert picture.size == (64, 64)
    assert np.asarray(picture)[..., 0].min() > 200 > 50 > np.asarray(picture)[..., 2].max()
    ten = (tmp_path / "made" / "ten_percent.txt").read_text(encoding="utf-8").split()
    assert ten == ["blue_00000.jpg", "blue_00001.jpg", "red_00000.jpg", "red_00001.jpg"]
    assert set((tmp_path / "made" / "one_percent.txt").read_text(encoding="utf-8").split()) < {*ten}
    with pytest.raises(DataError, match=r"class 'blue' has 20 pictures, 21 are needed"):
        make_folder(splits, tmp_path / "more", per_class=(21, 5))


def test_scenes_like_vocs(splits, tmp_path):
    make_scenes(splits, tmp_path, counts=(12, 6), seed=1)
    train, test = open_annotated(str(tmp_path), "trainval", "test")
    assert (len(train.pictures), len(test.pictures), train.classes) == (12, 6, ["blue", "red"])
    assert {len(picture.boxes) for picture in train.pictures} == {1, 2, 3}
    for picture in (*train.pictures, *test.pictures):
        pixels = np.asarray(Image.open(picture.path).convert("RGB")).astype(int)
        assert pixels.shape == (128, 128, 3)
        for (x1, y1, x2, y2), label in zip(picture.boxes.int().tolist(), picture.labels, strict=True):
            assert 32 <= x2 - x1 == y2 - y1 <= 64
            assert min(x1, y1) >= 0
            assert max(x2, y2) <= 128
            inside = pixels[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].mean((0, 1))
            assert inside.argmax() == (2 if label == 1 else 0)  # the class's colour
            assert inside.max() > 3 * np.sort(inside)[1]  # which no background has
            if x1 >= 4 and len(picture.boxes) == 1:  # and it ends where the box does
                beside = pixels[y1 + 4 : y2 - 4, x1 - 4 : x1 - 1].mean((0, 1))
                assert abs(beside - inside).max() > 20
    _, boxes, labels = _scene(splits.train, np.random.default_rng(1))
    assert train.pictures[0].boxes.tolist() == [[*box] for box in boxes]
    assert train.pictures[0].labels.tolist() == [label + 1 for label in labels]
    first, second = open_voc(tmp_path)
    for split, annotated in ((first, train), (second, test)):
        present = [[label in picture.labels for label in (1, 2)] for picture in annotated.pictures]
        assert torch.equal(split.targets > 0, torch.tensor(present))


def test_scenes_are_those_of_the_seed(splits, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_scenes(splits, tmp_path / folder, counts=(2, 1), seed=seed)
    a, b, c = ((tmp_path / f / "JPEGImages" / "test_00000.jpg").read_bytes() for f in "abc")
    assert a == b != c


def test_what_is_there_is_kept(source, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "VOC2007").mkdir()
    make_miniature(str(source), tmp_path)
    assert not any((tmp_path / "pictures").iterdir())
    with pytest.raises(DataError, match="has 20 pictures, 1000 are needed"):
        make_miniature(str(source), tmp_path / "other")
    assert not (tmp_path / "other" / "pictures").exists()  # half of it is not taken for the whole
