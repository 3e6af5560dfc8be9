"""Boxes and masks out of VOC's and COCO's files."""

import json

import pytest
import torch
from PIL import Image

from bt_multimodal.data.records import DataError
from encoders.image.detection.annotations import masks, open_annotated


def voc(root, year, lists, objects, with_pictures=True):
    """A year of a devkit: ``objects`` of every picture are (name, x1, y1, x2, y2, difficult)."""
    year = root / year
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    for split, names in lists.items():
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            rows = "".join(
                f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
                f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for kind, x1, y1, x2, y2, difficult in objects
            )
            (year / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename><size><width>40</width><height>30</height></size>"
                f"{rows}</annotation>"
            )
            Image.new("RGB", (40, 30)).save(year / "JPEGImages" / f"{name}.jpg")
    return root


OBJECTS = [("dog", 1, 1, 40, 30, 0), ("cat", 11, 6, 20, 15, 1)]


def test_voc_boxes_are_continuous_and_from_zero(tmp_path):
    train, test = open_annotated(
        str(voc(tmp_path, "VOC2007", {"trainval": ["a", "b"], "test": ["c"]}, OBJECTS)), "trainval", "test"
    )
    assert train.classes == ["cat", "dog"]
    first = train.pictures[0]
    assert first.path == tmp_path / "VOC2007" / "JPEGImages" / "a.jpg"
    assert first.size == (30, 40)
    # Pixels 1 to 40 are the whole width of 40.
    assert first.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert first.labels.tolist() == [2, 1]
    assert first.ignore.tolist() == [False, True]
    assert len(train.to_train_on()[0].labels) == 2  # difficult ones are trained on
    assert len(test.pictures) == 1


def test_voc_years_are_joined(tmp_path):
    voc(tmp_path, "VOC2007", {"trainval": ["a"], "test": ["c"]}, OBJECTS)
    voc(tmp_path, "VOC2012", {"trainval": ["d", "e"]}, OBJECTS)
    both = [tmp_path, f"{tmp_path / 'VOC2007'},{tmp_path / 'VOC2012'}"]
    for source in both:
        train, test = open_annotated(str(source), "trainval", "test")
        assert [p.path.stem for p in train.pictures] == ["a", "d", "e"]
        assert [p.path.stem for p in test.pictures] == ["c"]
    train, _ = open_annotated(str(tmp_path), "VOC2012/trainval", "VOC2007/test")
    assert [p.path.stem for p in train.pictures] == ["d", "e"]


def test_pictures_without_objects_are_not_trained_on(tmp_path):
    train, _ = open_annotated(str(voc(tmp_path, "VOC2007", {"train": ["a"]}, [])), "train", "train")
    assert len(train.pictures) == 1
    assert train.pictures[0].boxes.shape == (0, 4)
    assert train.to_train_on() == []


def coco(root, split="train", **changes):
    """COCO's files: two categories, a picture with a polygon and a crowd, one with a crowd alone."""
    (root / "annotations").mkdir(exist_ok=True)
    (root / split).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (20, 10)).save(root / split / f"{name}.jpg")
    square = [[2, 1, 6, 1, 6, 5, 2, 5]]
    crowd = {"counts": [0, 10, 190], "size": [10, 20]}  # the first column
    size = {"height": 10, "width": 20}
    ant = {"category_id": 3, "bbox": [0, 0, 1, 10], "iscrowd": 1, "segmentation": crowd}
    cat = {"category_id": 9, "bbox": [2, 1, 4, 4], "iscrowd": 0, "segmentation": square}
    content = {
        "images": [{"id": 7 + i, "file_name": f"{n}.jpg", **size} for i, n in enumerate("ab")],
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "ant"}],
        "annotations": [
            {"id": 1, "image_id": 7, **cat},
            {"id": 2, "image_id": 7, **ant},
            {"id": 3, "image_id": 8, **ant},
        ],
        **changes,
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_coco_boxes_masks_and_crowds(tmp_path):
    train, _ = open_annotated(str(coco(tmp_path)), "train", "train")
    assert train.classes == ["ant", "cat"]  # by the categories' numbers
    first, second = train.pictures
    assert first.boxes.tolist() == [[2, 1, 6, 5], [0, 0, 1, 10]]
    assert first.labels.tolist() == [2, 1]
    assert first.ignore.tolist() == [False, True]
    shown = masks(first)
    assert shown.shape == (2, 10, 20)
    assert shown[0].nonzero().tolist() == [[y, x] for y in range(1, 5) for x in range(2, 6)]
    assert torch.equal(shown[1], torch.zeros(10, 20, dtype=torch.uint8).index_fill_(1, torch.tensor([0]), 1))
    assert second.ignore.all()
    # A crowd is nothing to train on, and neither is a picture that shows no more.
    (only,) = train.to_train_on()
    assert only.labels.tolist() == [2]
    assert len(masks(only)) == 1


def test_wrong_inputs_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    root = voc(tmp_path / "devkit", "VOC2007", {"train": ["a"]}, OBJECTS)
    other = voc(tmp_path / "other", "VOC2007", {"train": ["a"]}, OBJECTS)
    voc(other, "VOC2012", {"test": ["z"]}, [("emu", 1, 1, 9, 9, 0)])
    (tmp_path / "instances").mkdir()
    instances = coco(tmp_path / "instances")
    cases = [
        (tmp_path / "nowhere", "train", "train", "there is no folder"),
        (tmp_path / "empty", "train", "train", "neither COCO"),
        (root, "train", "test", "no ImageSets/Main/test.txt in VOC2007"),
        (root, "VOC2012/train", "train", "no year 'VOC2012', only VOC2007"),
        (other, "train", "VOC2012/test", "'emu', which no training picture does"),
        (
            instances,
            "train",
            "val",
            "instances_val.json is not a file of COCO's instances: FileNotFoundError",
        ),
    ]
    for source, train, test, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            open_annotated(str(source), train, test)
        assert "\n" not in str(caught.value)


def test_damaged_annotations_are_named(tmp_path):
    root = voc(tmp_path / "devkit", "VOC2007", {"train": ["a"]}, OBJECTS)
    file = root / "VOC2007" / "Annotations" / "a.xml"
    whole = file.read_text(encoding="utf-8")
    for text in (whole[:50], whole.replace("xmin", "left"), whole.replace("<height>30</height>", "")):
        file.write_text(text)
        with pytest.raises(DataError, match=r"cannot read the annotation .*a\.xml"):
            open_annotated(str(root), "train", "train")
    (tmp_path / "instances").mkdir()
    wrong = coco(tmp_path / "instances", categories=[{"id": 9, "name": "cat"}])
    with pytest.raises(DataError, match="not a file of COCO's instances: KeyError: 3"):
        open_annotated(str(wrong), "train", "train")


def test_masks_of_boxes_alone(tmp_path):
    train, _ = open_annotated(str(voc(tmp_path, "VOC2007", {"train": ["a"]}, OBJECTS)), "train", "train")
    with pytest.raises(DataError, match="has no masks, only boxes"):
        masks(train.pictures[0])
