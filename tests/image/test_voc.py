"""The VOC layout: what is read, and what the errors say."""

from pathlib import Path

import pytest

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import DataError
from encoders.image.voc import open_voc

LISTS = "ImageSets/Main"


def write(root: Path, lists: dict[str, str]) -> Path:
    """Lists of ids and values by name, and a file for every id, whose content is the id."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / LISTS).mkdir(parents=True)
    for name, text in lists.items():
        lines = text.split("/") if text else []
        (root / LISTS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            (root / "JPEGImages" / f"{line.split()[0]}.jpg").write_text(line.split()[0])
    return root


GOOD = {
    "dog_trainval": "000007  1/000005 -1/000012  0",
    "cat_trainval": "000005  1/000007 -1/000012 -1",
    "dog_test": "000001 -1/000002  1",
    "cat_test": "000001  1/000002  0",
    "dog_val": "000005 -1",
    "cat_val": "000005  1",
    "trainval": "000005/000007/000012",  # the split alone, without a class
}


def test_pictures_and_targets(tmp_path):
    train, test = open_voc(str(write(tmp_path / "VOC2007", GOOD)))
    assert train.records.classes == test.records.classes == ["cat", "dog"]
    assert [train.records.raw(i) for i in range(3)] == [b"000005", b"000007", b"000012"]
    assert train.targets.tolist() == [[1, -1], [-1, 1], [-1, 0]]
    assert test.targets.tolist() == [[1, -1], [0, 1]]
    assert train.records.labels.tolist() == [0, 1, 2]
    assert train.records.name(1) == str(tmp_path / "VOC2007/JPEGImages/000007.jpg")
    assert len(open_voc(tmp_path / "VOC2007", "val", "test")[0].records) == 1


def test_a_label_is_a_row_of_the_targets_also_of_a_subset(tmp_path):
    train, _ = open_voc(write(tmp_path / "VOC2007", GOOD))
    (tmp_path / "VOC2007/JPEGImages/000007.jpg").write_text("")
    part = DecodedRecords(train.records, lambda raw: raw, allowed=1).subset([2, 0])
    assert [part.get(i) for i in range(2)] == [b"000012", b"000005"]
    assert train.targets[part.records.labels].tolist() == [[-1, 0], [1, -1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dog_trainval": None, "cat_trainval": None}, "no split 'trainval'.*Main/CLASS_trainval.txt$"),
        ({"dog_test": None}, "has class 'dog' in only one of the splits 'trainval' and 'test'$"),
        (
            {"dog_test": "000001 -1/000003 1"},
            "dog_test.txt' and 'cat_test.txt' list different pictures: '000002' is in only one of them$",
        ),
        ({"dog_test": "000001 -1"}, "'000002' is in only one of them$"),
        ({"dog_test": "000001 -1/000002 2"}, "line 2 of .*dog_test.txt' is not a picture id .*: '000002 2'$"),
        ({"dog_test": "000001 -1/000002"}, "line 2 of .* is not a picture id and 1, -1 or 0: '000002'$"),
        ({"dog_test": "000001 -1/000002 1/000002 1"}, "line 3 of .*dog_test.txt' names '000002' again$"),
        ({"dog_test": "", "cat_test": ""}, "cat_test.txt' lists no pictures$"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit(tmp_path, change, message):
    lists = {name: text for name, text in {**GOOD, **change}.items() if text is not None}
    with pytest.raises(DataError, match=message) as caught:
        open_voc(write(tmp_path / "VOC2007", lists))
    assert "\n" not in str(caught.value)


def test_folders_that_do_not_fit(tmp_path):
    root = write(tmp_path / "VOCdevkit" / "VOC2007", GOOD)
    with pytest.raises(DataError, match=r"is not a VOC folder: .*; did you mean '.*VOCdevkit/VOC2007'\?$"):
        open_voc(root.parent)
    with pytest.raises(
        DataError, match=r"nowhere' is not a VOC folder: it has no JPEGImages/ and ImageSets/Main/$"
    ):
        open_voc(tmp_path / "nowhere")
    (root / LISTS / "dog_test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"cannot read .*dog_test.txt"):
        open_voc(root)


def test_a_picture_that_is_not_there(tmp_path):
    root = write(tmp_path / "VOC2007", GOOD)
    (root / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"^1 of 2 pictures of split 'test' are not in .*; first: '000002'$"):
        open_voc(root)
