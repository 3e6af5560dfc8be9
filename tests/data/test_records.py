"""Opening sources: what is found by convention, what is overridden, and what the errors say."""

import csv
import io
import json
import pickle
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from bt_multimodal.data import records
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.records import Splits, open_records
from bt_multimodal.data.sources import tables
from encoders.image.modality import IMAGES


def opened(source: object, **options) -> Splits:
    return open_records(
        str(source),
        **{
            "extensions": (".jpg", ".png"),
            "content_columns": ("image", "file"),
            "embedded": IMAGES.embedded,
        }
        | options,
    )


def write(root: Path, *names: str) -> Path:
    """Files whose content is their own path; none of them decodes."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def contents(part: records.Records) -> list[str]:
    return [part.raw(i).decode() for i in range(len(part))]


def image_table(*labels: int, names: list[str] | None = None) -> Dataset:
    features = Features(
        {"id": Value("int64"), "image": Image(), "label": ClassLabel(names=names or ["cat", "ant"])}
    )
    images = [{"bytes": f"no image {i}".encode(), "path": None} for i in range(len(labels))]
    return Dataset.from_dict(
        {"id": [*range(len(labels))], "image": images, "label": [*labels]}, features=features
    )


def write_csv(path: Path, columns: str, *rows: str, delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(row.split() for row in (columns, *rows))
    return path


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_folder_with_splits_and_classes(tmp_path, test):
    train = ("train/b/2.JPG", "train/b/1.png", "train/a/deep/3.jpg", "train/a/.hidden.jpg", "train/a/x.txt")
    splits = opened(write(tmp_path, *train, "train/.c/4.jpg", f"{test}/b/9.jpg", "README.txt"))
    assert not splits.held_out
    assert splits.train.classes == splits.test.classes == ["a", "b"]
    assert contents(splits.train) == ["train/a/deep/3.jpg", "train/b/1.png", "train/b/2.JPG"]
    assert splits.train.labels.tolist() == [0, 1, 1]
    assert contents(splits.test) == [f"{test}/b/9.jpg"]
    assert splits.test.labels.tolist() == [1]
    assert splits.train.labels.dtype == torch.int64
    assert splits.train.name(1) == str(tmp_path / "train/b/1.png")


def test_flat_folder_has_no_labels_and_is_trained_on_whole(tmp_path):
    splits = opened(write(tmp_path, *(f"{i}.jpg" for i in range(6))))
    assert not splits.held_out
    assert splits.train.classes == []
    assert splits.train.labels.tolist() == [-1] * 6
    assert (contents(splits.train), len(splits.test)) == ([f"{i}.jpg" for i in range(6)], 0)


def test_train_is_a_class_beside_other_classes(tmp_path):
    write(tmp_path, *(f"{name}/{i}.jpg" for name in ("bus", "train") for i in range(5)))
    splits = opened(tmp_path)
    assert splits.train.classes == ["bus", "train"]
    assert splits.test.labels.tolist() == [0, 1]
    assert len(opened(tmp_path, train_split="train").train) == 5


def test_numbers_are_sorted_as_numbers(tmp_path):
    assert opened(write(tmp_path, "10/a.jpg", "9/a.jpg", "-1/a.jpg")).train.classes == ["-1", "9", "10"]


def test_folder_split_overrides(tmp_path):
    write(tmp_path, "one/a/1.jpg", "two/a/2.jpg", "test/a/3.jpg")
    splits = opened(tmp_path, train_split="one", test_split="two")
    assert (contents(splits.train), contents(splits.test)) == (["one/a/1.jpg"], ["two/a/2.jpg"])
    assert contents(opened(tmp_path, train_split="one").test) == ["test/a/3.jpg"]


def test_subset(tmp_path):
    part = opened(write(tmp_path, *(f"train/{c}/{c}.jpg" for c in "abcd"), "test/a/1.jpg")).train
    twice = part.subset([3, 1, 0]).subset(torch.tensor([2, 0]))
    assert contents(twice) == ["train/a/a.jpg", "train/d/d.jpg"]
    assert twice.labels.tolist() == [0, 3]
    assert twice.name(1).endswith("d.jpg")
    assert twice.classes == list("abcd")
    assert len(part.subset([])) == 0
    assert contents(pickle.loads(pickle.dumps(twice))) == contents(twice)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_manifest(tmp_path, suffix):
    write(tmp_path, "x/1.jpg", "x/2.jpg", "x/3.jpg", "x/4.jpg")
    rows = [
        ("x/1.jpg", 10, "train"),
        ("x/2.jpg", 9, "train"),
        ("x/3.jpg", 9, "test"),
        ("x/4.jpg", 7, "extra"),
    ]
    path = tmp_path / f"m{suffix}"
    if suffix == ".jsonl":
        path.write_text(
            "\n".join(json.dumps(dict(zip(("file", "class", "split"), r, strict=True))) for r in rows)
        )
    else:
        lines = (" ".join(map(str, row)) for row in rows)
        write_csv(path, "file class split", *lines, delimiter="," if suffix == ".csv" else "\t")
    splits = opened(path)
    assert (contents(splits.train), contents(splits.test)) == (["x/1.jpg", "x/2.jpg"], ["x/3.jpg"])
    assert splits.train.classes == ["9", "10"]
    assert splits.train.labels.tolist() == [1, 0]
    assert splits.train.name(0) == str(tmp_path / "x/1.jpg")


def test_manifest_overrides(tmp_path):
    write(tmp_path, "1.jpg", "2.jpg")
    path = write_csv(
        tmp_path / "m.csv", "image label where speaker split", "no a 1.jpg u one", "no a 2.jpg u two"
    )
    assert opened(path, train_split="one", test_split="two").train.classes == ["a"]
    splits = opened(
        path,
        content_column="where",
        label_column="speaker",
        train_split="one",
        test_split="two",
        require_labels=True,
    )
    assert (contents(splits.train), contents(splits.test)) == (["1.jpg"], ["2.jpg"])
    assert splits.train.classes == ["u"]


def test_manifest_with_empty_cells_and_missing_files(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("file,label,split\n,,train\ngone.jpg,a,train\nx.jpg,a,test\n")
    train = opened(path).train
    assert train.labels.tolist() == [-1, 0]
    assert train.name(0) == "m.csv train row 0"
    for i, message in enumerate(["m.csv train row 0 is empty", "gone.jpg"]):
        with pytest.raises(OSError, match=message):
            train.raw(i)


@pytest.mark.parametrize("in_memory", [True, False])
def test_parquet_folder(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(tables, "_IN_MEMORY_BYTES", 0)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    image_table(0, 1, -1).to_parquet(tmp_path / "train-00000-of-00002.parquet")
    image_table(1).to_parquet(tmp_path / "train-00001-of-00002.parquet")
    image_table(0, names=["ant", "cat"]).to_parquet(tmp_path / "test.parquet")
    splits = opened(tmp_path)
    assert not splits.held_out
    assert splits.train.classes == ["cat", "ant"]  # the declared order
    assert splits.train.labels.tolist() == [0, 1, -1, 1]
    assert splits.test.labels.tolist() == [1]  # matched by name, not by number
    assert contents(splits.train) == ["no image 0", "no image 1", "no image 2", "no image 0"]
    assert splits.test.name(0) == "test.parquet row 0"
    assert splits.train.subset([2]).name(0) == f"{tmp_path.name}/train row 2"
    assert (tmp_path / "cache").exists() is not in_memory
    assert len({part._parts[0].cells._table._fingerprint for part in splits[:2]}) == 2
    assert contents(pickle.loads(pickle.dumps(splits.train))) == contents(splits.train)


def test_parquet_overrides_and_unnamed_files(tmp_path):
    for name, label in {"one": 0, "two": 1}.items():
        image_table(*[label] * 5).to_parquet(tmp_path / f"{name}.parquet")
    assert len(opened(tmp_path).train) == 8
    splits = opened(tmp_path, train_split="two", test_split="one")
    assert (splits.train.labels[0], splits.test.labels[0], splits.held_out) == (1, 0, False)
    assert opened(tmp_path / "one.parquet", label_column="id").train.classes == list("01234")


@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_parquet_with_plain_columns(tmp_path, kind):
    write(tmp_path, "1.jpg", "2.jpg")
    names = ["1.jpg", "2.jpg"]
    cells = [name.encode() for name in names] if kind == "bytes" else names
    Dataset.from_dict({"file": cells, "label": ["x", None]}).to_parquet(tmp_path / "all.parquet")
    splits = opened(tmp_path / "all.parquet")
    assert splits.held_out
    assert sorted(contents(splits.train) + contents(splits.test)) == names
    assert sorted([*splits.train.labels.tolist(), *splits.test.labels.tolist()]) == [-1, 0]
    where = {"bytes": "all.parquet row", "path": str(tmp_path)}[kind]
    assert splits.train.name(0).startswith(where)


def test_files_are_told_apart_by_the_split_in_their_names(tmp_path):
    for name in ("set-train-000000", "set-train-000001", "set-test-000000"):
        image_table(0).to_parquet(tmp_path / "shards" / f"{name}.parquet")
    assert [len(part) for part in opened(tmp_path / "shards")[:2]] == [2, 1]
    for name in ("fold-1", "fold-2"):
        image_table(0).to_parquet(tmp_path / "folds" / f"{name}.parquet")
    splits = opened(tmp_path / "folds", train_split="fold-1", test_split="fold-2")
    assert [len(part) for part in splits[:2]] == [1, 1]


def write_tar(path: Path, *members: tuple[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return path


def sample(key: str, label: str, extension: str = "jpg") -> tuple[tuple[str, str], ...]:
    return ((f"{key}.{extension}", key), (f"{key}.cls", label), (f"{key}.speaker.txt", f"of {key}\n"))


def test_tar_folder(tmp_path):
    shards = tmp_path / "a b"  # a path with a space
    write_tar(shards / "train-000000.tar", *sample("x/1", "10"), *sample("x/2", "9", "PNG"), ("3.jpg", "3"))
    write_tar(shards / "train-000001.tar", ("4.cls", "9"), *sample("x/5", "9"))
    write_tar(shards / "test-000000.tar", *sample("x/6", "9"))
    splits = opened(shards)
    assert splits.train.classes == ["9", "10"]
    assert splits.train.labels.tolist() == [1, 0, -1, 0, 0]
    assert contents(splits.train.subset([0, 1, 2, 4])) == ["x/1", "x/2", "3", "x/5"]
    assert splits.train.open(0).read() == b"x/1"
    assert splits.train.name(0) == f"{shards}/train-000000.tar at byte 512"
    with pytest.raises(OSError, match="train row 3 is empty"):
        splits.train.raw(3)
    assert (contents(splits.test), splits.test.labels.tolist()) == (["x/6"], [0])
    assert contents(pickle.loads(pickle.dumps(splits.test))) == ["x/6"]
    one = opened(shards / "train-000000.tar", content_column="speaker.txt", label_column="speaker.txt")
    assert sorted(one.train.classes) == ["of x/1", "of x/2"]
    assert len(one.train) + len(one.test) == 3


def test_hub(monkeypatch):
    asked = []

    def load_dataset(*name):
        asked.append(name)
        return DatasetDict(train=image_table(0, 1), validation=image_table(1))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = opened("someone/some-set:small")
    assert asked == [("someone/some-set", "small")]
    assert contents(splits.train) == ["no image 0", "no image 1"]
    assert splits.test.labels.tolist() == [1]
    assert splits.test.name(0) == "someone/some-set:small validation row 0"
    assert opened("some-set").train.classes == ["cat", "ant"]
    assert asked[1] == ("some-set", None)


def test_a_hub_set_that_comes_as_code_is_taken_as_the_hub_converted_it(monkeypatch):
    def load_dataset(*name, revision=None):
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found set.py")
        assert revision == "refs/convert/parquet"
        return DatasetDict(train=image_table(0, 1))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(opened("someone/set").train) == 1


@pytest.mark.parametrize(
    "error", [ConnectionError("no\nroute"), datasets.exceptions.DatasetNotFoundError("no\nroute")]
)
def test_hub_out_of_reach_is_one_line(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataError, match=r"^'someone/set' does not exist here, and the hub cannot serve it: no route$"
    ):
        opened("someone/set")


def test_digits():
    splits = opened("sklearn:digits", require_labels=True)
    assert (len(splits.train), len(splits.test), splits.held_out) == (1437, 360, True)
    assert splits.train.classes == [str(i) for i in range(10)]
    counts = splits.test.labels.bincount()
    assert counts.min() >= 34
    assert counts.max() <= 37
    image = splits.train.raw(0)
    assert (image.shape, image.dtype) == ((8, 8), np.uint8)
    assert max(splits.train.raw(i).max() for i in range(20)) == 255
    assert splits.train.name(0).startswith("sklearn:digits row ")


@pytest.fixture
def broken(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(
        tmp_path,
        "flat/1.jpg",
        "flat/2.jpg",
        "new/train/a/1.jpg",
        "new/test/zebra/1.jpg",
        "torn.parquet",
        "a.txt",
    )
    write(tmp_path, "gap/train/a/1.jpg", "gap/test/1.jpg", "lone/1.jpg")
    write_csv(tmp_path / "good.csv", "file label split", "1.jpg a train", "2.jpg a test")
    write_csv(tmp_path / "header.csv", "file label")
    write_csv(tmp_path / "wide.csv", "file label", "1.jpg a", "2.jpg b c")
    write_csv(tmp_path / "bare.csv", "file", "1.jpg", "2.jpg")
    (tmp_path / "bad.jsonl").write_text('{"file": "1.jpg"}\n{"file": \n')
    (tmp_path / "latin.csv").write_bytes(b"file,label\n\xe9.jpg,a\n")
    write_tar(tmp_path / "text.tar", ("1.txt", "text"))
    write_tar(tmp_path / "bare.tar", ("1.jpg", "1"), ("2.jpg", "2"))
    write_tar(tmp_path / "wordy.tar", ("1.jpg", "1"), ("1.cls", "a" * 5000))
    (tmp_path / "torn.tar").write_bytes(
        write_tar(tmp_path / "t.tar", ("1.jpg", "1" * 2000)).read_bytes()[:1000]
    )
    image_table(0, 1).to_parquet(tmp_path / "one.parquet")
    beyond = image_table(0, 1).with_format("arrow")[:]
    beyond = beyond.set_column(2, beyond.field("label"), [[0, 2]])
    Dataset(beyond).to_parquet(tmp_path / "beyond.parquet")
    image_table().to_parquet(tmp_path / "zero.parquet")
    return tmp_path


WRONG = [
    ("/no/such/folder", {}, "'/no/such/folder' does not exist"),
    ("gone.csv", {}, "'gone.csv' does not exist"),
    ("a.txt", {}, "'a.txt' is not a folder"),
    ("sklearn:digit", {}, "'sklearn:digit'; did you mean 'sklearn:digits'?"),
    ("empty", {}, "no file with extension .jpg, .png under 'empty'"),
    ("flat", {"extensions": (".wav",)}, "no file with extension .wav under 'flat'"),
    ("flat", {"require_labels": True}, "2 of 2 records of flat have no label"),
    ("gap", {"require_labels": True}, "1 of 1 records of gap/test have no label"),
    ("lone", {}, "'lone' has 1 record and no test split"),
    ("new", {}, "class 'zebra' of new/test is not in the training split; available classes: a"),
    (
        "new",
        {"train_split": "trian"},
        "no split 'trian'; available splits: test, train; did you mean 'train'?",
    ),
    (
        "good.csv",
        {"content_column": "fil"},
        "no content column 'fil'; available columns: file, label, split; did",
    ),
    ("good.csv", {"content_columns": ("img", "images")}, "no content column 'img' or 'images'"),
    (
        "good.csv",
        {"label_column": "lable"},
        "no label column 'lable'; available columns: file, label, split; did",
    ),
    (
        "good.csv",
        {"test_split": "tset"},
        "no split 'tset'; available splits: train, test; did you mean 'test'?",
    ),
    ("header.csv", {}, "'header.csv' has no records"),
    ("wide.csv", {}, "row 1 (from 0) does not fit"),
    ("bare.csv", {"require_labels": True}, "bare.csv has no label column 'label' or 'labels'"),
    ("bad.jsonl", {}, "cannot read 'bad.jsonl': Expecting value"),
    ("latin.csv", {}, "cannot read 'latin.csv': 'utf-8'"),
    ("torn.parquet", {}, "cannot read 'torn.parquet'"),
    ("zero.parquet", {}, "zero.parquet has no records"),
    ("beyond.parquet", {}, "column 'label' of beyond.parquet has the label 2 but names only 2 classes"),
    ("text.tar", {}, "text.tar has no content column 'jpg' or 'png'; available columns: txt"),
    ("bare.tar", {"label_column": "cls"}, "bare.tar has no label column 'cls'; available columns: jpg"),
    ("bare.tar", {"require_labels": True}, "bare.tar has no label column 'label' or 'labels'"),
    ("wordy.tar", {}, "column 'cls' of wordy.tar has a label of 5,000 characters; at most 1,000 are allowed"),
    ("torn.tar", {}, "cannot read torn.tar: a member of 2000 bytes at byte 0 of 1000"),
    ("gone.tar", {}, "'gone.tar' does not exist"),
    ("one.parquet", {"content_column": "id"}, "column 'id' of one.parquet holds int64"),
    ("one.parquet", {"test_split": "test"}, "no split 'test'; available splits: train"),
]


def test_a_mistyped_local_path_does_not_ask_the_hub(tmp_path, monkeypatch):
    (tmp_path / "data" / "birds").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(DataError, match="'data/brids' does not exist"):
        open_records("data/brids", extensions=(".png",), content_columns=("image",))


@pytest.mark.parametrize(("source", "options", "message"), WRONG)
def test_errors_are_one_line_and_name_the_value(broken, source, options, message):
    with pytest.raises(DataError) as caught:
        opened(source, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.shared
def test_shared_sets(shared):
    shared = shared / "data"
    cifar = opened(shared / "cifar10", content_columns=("img",), require_labels=True)
    assert (len(cifar.train), len(cifar.test), cifar.held_out) == (50_000, 10_000, False)
    assert len(cifar.train.classes) == 10
    assert cifar.train.raw(0).startswith(b"\xff\xd8")
    spoken = opened(shared / "fsdd" / "manifest.csv", content_columns=("audio",), require_labels=True)
    assert (len(spoken.train), len(spoken.test), spoken.held_out) == (2000, 1000, False)
    assert spoken.train.classes == list("0123456789")
    assert spoken.test.raw(999).startswith(b"RIFF")
    with pytest.raises(DataError, match=r"class 'lucas' of manifest\.csv test is not in the training split"):
        opened(shared / "fsdd" / "manifest.csv", content_columns=("audio",), label_column="speaker")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("recordngs", "'recordngs' does not exist here; did you mean 'recordings'?"),
        ("Recordings2/x.csv", "'Recordings2/x.csv' does not exist"),
        ("recordings.cvs", "'recordings.cvs' does not exist here; did you mean 'recordings.csv'?"),
        ("syntetic", "there is no embedded set 'syntetic'; did you mean 'synthetic'?"),
        ("data/brids", "'data/brids' does not exist; did you mean 'data/birds'?"),
        ("train.parqet", "'train.parqet' does not exist here; did you mean 'train.parquet'?"),
    ],
)
def test_a_slip_is_told_before_any_request(tmp_path, monkeypatch, source, message):
    write(
        tmp_path, "recordings/1.jpg", "recordings.csv", "data/birds/1.jpg", "train.parquet", "cifar100/1.jpg"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(DataError) as caught:
        opened(source, embedded={"synthetic": dict})
    assert message in str(caught.value)


def test_a_name_that_differs_in_digits_is_no_slip(tmp_path, monkeypatch):
    write(tmp_path, "cifar100/1.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: DatasetDict(train=image_table(0, 1)))
    assert opened("cifar10").train.classes == ["cat", "ant"]


def test_without_a_connection_the_hubs_client_does_not_try_again(monkeypatch):
    from huggingface_hub import constants

    from bt_multimodal.data.sources import hub

    def load_dataset(*_):
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
        raise ConnectionError("offline mode is enabled")

    monkeypatch.setattr(hub, "_reachable", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(DataError, match=r"the hub cannot serve it: there is no connection to it$"):
        opened("someone/set")
    assert before == constants.HF_HUB_OFFLINE
