"""Cells that are the content: opened and streamed alike, from every kind of file, never taken for a path."""

import csv
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import DataError, Records, Splits, open_records
from bt_multimodal.data.sources import rows
from bt_multimodal.data.streams import Stream

COLUMNS = ("text", "sentence", "title+text", "sentence1,sentence2")
PATHS = ["own.txt", "/etc/passwd", "../own.txt", "http://127.0.0.1:9/y", "hf://a/b", "file:///etc/passwd",
         "zip://a::https://host/b", "x" * 5000]  # fmt: skip
TEXTS = [
    "one, two\nthree", '"quoted" \'n\' such', "a😀 👩‍👩‍👧 b", "שלום, עולם", "مرحبا\u202eabc", "", "tab\there",
    "line\u2028separated\x0cpage\x85next", "nul\0inside", *PATHS,
]  # fmt: skip


def opened(source: object, **options) -> Splits:
    given = {"extensions": (), "content_columns": COLUMNS, "inline": True} | options
    return open_records(source if isinstance(source, list) else str(source), **given)


def stream(source: object, **options) -> Stream:
    return Stream(str(source), COLUMNS, inline=True, **options)


def contents(part: Records) -> list[str]:
    return [part.raw(i).decode() for i in range(len(part))]


def everything(source: object, **options) -> list[str]:
    """Of a source without test split, train and test."""
    splits = opened(source, **options)
    assert splits.held_out == bool(splits.train.classes)  # without labels, all of it is trained on
    return contents(splits.train) + contents(splits.test)


def streamed(found: Stream) -> list[str]:
    records = found.records(list(found.rows(0, 0)))
    return contents(records)


def write(path: Path, columns: dict[str, list]) -> Path:
    """A table in the format that the path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in cells]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join(columns["text"]), encoding="utf-8")
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([columns, *cells])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_cell_is_the_content_of_a_record(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("is not to be opened", encoding="utf-8")
    monkeypatch.setattr("fsspec.open", lambda *_, **__: pytest.fail("something was fetched"))
    labels = [str(i % 2) for i in range(len(TEXTS))]
    path = write(tmp_path / f"all{suffix}", {"text": TEXTS, "label": labels})
    splits = opened(path)
    assert sorted(contents(splits.train) + contents(splits.test)) == sorted(TEXTS)
    assert splits.train.classes == ["0", "1"]
    found = {
        text: label for part in splits[:2] for text, label in zip(contents(part), part.labels, strict=True)
    }
    assert [int(found[text]) for text in TEXTS] == [i % 2 for i in range(len(TEXTS))]
    names = sorted(part.name(i) for part in splits[:2] for i in range(len(part)))
    assert names == sorted(f"all{suffix} row {i}" for i in range(len(TEXTS)))
    assert splits.train.open(0).read() == splits.train.raw(0)
    assert contents(pickle.loads(pickle.dumps(splits.train))) == contents(splits.train)
    assert streamed(stream(path)) == TEXTS
    assert next(stream(path).rows(0, 0)).name == f"all{suffix} row 0"


def test_lines_of_a_text_file(tmp_path):
    path = tmp_path / "all.TXT"
    path.write_bytes("\ufeffone\r\n\n  \n\r\ntwo\u2028still\x0ctwo\x85\rtwo\n  three \n😀".encode())
    texts = ["one", "two\u2028still\x0ctwo\x85\rtwo", "  three ", "😀"]
    assert sorted(everything(path)) == sorted(texts)
    assert streamed(stream(path)) == texts
    splits = opened(path)
    assert (splits.train.classes, splits.train.labels.tolist(), len(splits.test)) == ([], [-1] * 4, 0)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path, suffix):
    path = write(tmp_path / f"all{suffix}", {"text": ["a", "b"]})
    path.write_bytes("\ufeff".encode() + path.read_bytes())
    assert sorted(everything(path)) == ["a", "b"]
    assert streamed(stream(path)) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_document_in_a_cell(tmp_path, suffix):
    document = "word\n " * 100_000
    path = write(tmp_path / f"all{suffix}", {"text": [document, "short"]})
    csv.field_size_limit(2**17)
    found = sorted(everything(path), key=len)
    assert found == ["short", document]
    assert streamed(stream(path)) == [document, "short"]
    assert csv.field_size_limit() == 2**17


def beside(path: Path, columns: dict[str, list], test: dict[str, list] | None = None) -> Path:
    """A folder of train and test, so that nothing is drawn."""
    write(path.with_stem("train"), columns)
    write(path.with_stem("validation"), test or columns)
    return path.parent


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_of_files_named_after_their_splits(tmp_path, suffix, below):
    one = {"text": ["a", "b"], "label": ["x", "y"]}
    two = {"text": ["c", "d"], "label": ["y", "x"]}
    for name, table in {"train-0": one, "train-1": two, "dev_test": {"text": ["e"], "label": ["y"]}}.items():
        write(tmp_path / below / f"{name}{suffix}", table)
    (tmp_path / below / f".train-9{suffix}").write_text("text\nhidden")
    splits = opened(tmp_path)
    train = ["a", "b", "c", "d"]
    assert (contents(splits.train), contents(splits.test), splits.held_out) == (train, ["e"], False)
    if suffix != ".txt":
        assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == ([0, 1, 1, 0], [1])
    assert splits.test.name(0) == f"dev_test{suffix} row 0"
    assert splits.train.name(2) == f"{(tmp_path / below).name}/train row 2"
    assert sorted(streamed(stream(tmp_path))) == train
    assert streamed(stream(tmp_path, split="test")) == ["e"]
    assert contents(opened(tmp_path, train_split="train", test_split="test").train) == train


def test_splits_are_in_a_column_where_names_of_files_say_none(tmp_path):
    table = {"text": ["a", "b", "c", "d"], "split": ["train", "test", "", "extra"]}
    for source in (
        write(tmp_path / "one" / "all.csv", table),
        tmp_path / "one",
        write(tmp_path / "two" / "part-0.csv", table).parent,
    ):
        splits = opened(source)
        assert (contents(splits.train), contents(splits.test)) == (["a", "c"], ["b"])
        assert contents(opened(source, test_split="extra").test) == ["d"]
        assert streamed(stream(source)) == ["a", "c"]
        assert streamed(stream(source, split="extra")) == ["d"]
    write(tmp_path / "two" / "part-1.csv", table)
    assert contents(opened(tmp_path / "two").test) == ["b", "b"]
    assert streamed(stream(tmp_path / "two", split="extra")) == ["d", "d"]
    named = beside(tmp_path / "named" / "x.csv", table)
    assert contents(opened(named).train) == streamed(stream(named)) == table["text"]


@pytest.mark.parametrize("way", [everything, lambda path: streamed(stream(path))])
def test_a_cell_without_end_is_refused(tmp_path, monkeypatch, way):
    monkeypatch.setattr(rows, "_LONGEST", 200_000)
    (tmp_path / "all.csv").write_text('text\nfine\n"' + "a,\n" * 10**6)
    csv.field_size_limit(2**17)
    with pytest.raises(DataError, match=r"all.csv': field larger than field limit \(200000\) \(line"):
        way(tmp_path / "all.csv")
    assert csv.field_size_limit() == 2**17


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_nulls_are_damaged_records_and_empty_texts_are_not(tmp_path, suffix):
    source = beside(tmp_path / f"x{suffix}", {"text": ["a", None, ""], "label": ["", "x", None]})
    records = opened(source).train
    assert [records.raw(0), records.raw(2)] == [b"a", b""]
    assert records.labels.tolist() == [-1, 0, -1]
    found = stream(source)
    for part in (records, found.records(list(found.rows(0, 0)))):
        assert part.raw(2) == b""
        with pytest.raises(OSError, match=rf"^train{suffix} row 1 is empty$"):
            part.raw(1)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_empty_cells_are_empty_texts_and_no_labels(tmp_path, suffix):
    between = "," if suffix == ".csv" else "\t"
    for name in ("train", "test"):
        lines = ["label,text", "x,", ',""', "y,a", "y"]
        (tmp_path / f"{name}{suffix}").write_text("\n".join(lines).replace(",", between))
    records = opened(tmp_path).train
    assert [records.raw(i) for i in range(3)] == [b"", b"", b"a"]
    assert (records.labels.tolist(), records.classes) == ([0, -1, 1, 1], ["x", "y"])
    with pytest.raises(OSError, match="row 3 is empty"):  # a row that is too short
        records.raw(3)
    assert [row.cell for row in stream(tmp_path).rows(0, 0)] == ["", "", "a", None]


def test_rows_of_other_columns_and_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK", 2)
    lines = [
        '{"text": 1.5}',
        "",
        '{"id": 1}',
        "{}",
        "{}",
        '{"text": true, "label": 3}',
        '{"label": 2, "text": "z"}',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "test.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DataError, match=r"test.jsonl has no label column 'label'"):
        opened(tmp_path, label_column="label")
    records = opened(tmp_path).train
    assert [records.raw(i) for i in (0, 4, 5)] == [b"1.5", b"True", b"z"]
    assert records.labels.tolist() == [-1, -1, -1, -1, 1, 0]
    assert [row.cell for row in stream(tmp_path).rows(0, 0)] == ["1.5", None, None, None, "True", "z"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_all_types_of_texts_in_parquet(tmp_path, kind):
    cells = [text.encode() for text in TEXTS] if "binary" in str(kind) else TEXTS
    source = beside(tmp_path / "x.parquet", {"text": pa.array(cells, kind), "n": [1] * len(TEXTS)})
    assert contents(opened(source).train) == TEXTS == streamed(stream(source))


PAIRS = {"title": ["t0", "t1", "", None], "a b": ["b0", "", "", None], "label": ["x", "y", "x", "y"]}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_compound_columns(tmp_path, suffix):
    source = beside(tmp_path / f"x{suffix}", PAIRS)
    for name in ("title+a b", " title + a b "):
        records = opened(source, content_column=name).train
        assert contents(records.subset([0, 1, 2])) == ["t0 b0", "t1", ""]
        found = stream(source, content_column=name)
        assert contents(found.records(list(found.rows(0, 0))[:3])) == ["t0 b0", "t1", ""]
        with pytest.raises(OSError, match="row 3 is empty"):
            records.raw(3)
    records = opened(source, content_column="title,a b").train
    assert contents(records.subset([0, 1, 2, 4, 5, 6])) == ["t0", "t1", "", "b0", "", ""]
    assert records.labels.tolist() == [0, 1, 0, 1] * 2
    assert records.name(5) == f"train{suffix} row 1"
    found = list(stream(source, content_column="title,a b").rows(0, 0))
    assert [row.cell for row in found] == ["t0", "b0", "t1", "", "", "", None, None]
    assert found[3].name == f"train{suffix} row 1"
    mixed = opened(source, content_column="title+a b,title,label+title+label").train
    assert contents(mixed.subset([0, 4, 8])) == ["t0 b0", "t0", "x t0 x"]


def test_a_column_of_that_very_name_comes_first(tmp_path):
    table = {"a": ["1"], "b": ["2"], "a+b": ["3"], "a,b": ["4"]}
    source = beside(tmp_path / "x.csv", table)
    for name, expected in {"a+b": ["3"], "a,b": ["4"], "b+a": ["2 1"], "b,a+b": ["2", "3"]}.items():
        assert contents(opened(source, content_column=name).train) == expected
        assert streamed(stream(source, content_column=name)) == expected


def test_conventional_compound_names_need_all_their_parts(tmp_path):
    for columns, expected in {
        ("title", "text"): ["text cell"],
        ("title", "body", "sentence"): ["sentence cell"],
        ("sentence2", "sentence1"): ["sentence1 cell", "sentence2 cell"],
    }.items():
        source = beside(tmp_path / "-".join(columns) / "x.csv", {name: [f"{name} cell"] for name in columns})
        assert contents(opened(source).train) == expected
        assert streamed(stream(source)) == expected
    with pytest.raises(
        DataError, match=r"no content column 'text' or .* or 'sentence1,sentence2'; available columns"
    ):
        opened(beside(tmp_path / "half" / "x.csv", {"sentence1": ["a"]}))


def hub_set(**columns) -> Dataset:
    names = ["pos", "neg"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict(columns, features=features)


def test_hub_and_embedded_sets(monkeypatch):
    train = hub_set(text=TEXTS, label=[i % 2 for i in range(len(TEXTS))])
    hub = DatasetDict(train=train, test=train.select([0]))

    def load_dataset(*_, streaming=False, split=None):
        return hub[split].to_iterable_dataset(2) if streaming else hub

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = opened("someone/set")
    assert contents(splits.train) == TEXTS
    assert splits.train.classes == ["pos", "neg"]
    assert splits.test.name(0) == "someone/set test row 0"
    assert Counter(streamed(stream("someone/set"))) == Counter(TEXTS)
    embedded = {"own": lambda: {"text": TEXTS, "label": ["x"] * len(TEXTS)}}
    assert sorted(everything("own", embedded=embedded)) == sorted(TEXTS)


def test_rows_on_the_hub_whose_columns_nobody_declared(tmp_path, monkeypatch):
    path = write(tmp_path / "all.csv", {"title": ["a", "b"], "text": ["1 c", "2 d"]})
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_, **options: load("csv", data_files=str(path), cache_dir=tmp_path / "cache", **options),
    )
    assert streamed(stream("someone/set", content_column="title+text")) == ["a 1 c", "b 2 d"]
    with pytest.raises(DataError, match="'txet'; available columns: title, text; did you mean 'text'"):
        stream("someone/set", content_column="txet")


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_every_record_is_streamed_once(tmp_path, parts):
    for i in range(3):
        table = {"text": [f"{i} {n}" for n in range(20)], "title": [f"t{i} {n}" for n in range(20)]}
        write(tmp_path / f"train-{i}.csv", table)
    for name in ("text", "text,title", "title+text"):
        found = stream(tmp_path, content_column=name)
        assert found.files == 3
        cells = [found.records(list(found.rows(0, 0, k, parts))) for k in range(parts)]
        whole = opened(tmp_path, content_column=name)
        expected = contents(whole.train) + contents(whole.test)
        assert Counter(text for records in cells for text in contents(records)) == Counter(expected)
        assert len(set(expected)) == len(expected) == 60 * (1 + ("," in name))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt"])
def test_streamed_rows_are_read_as_they_are_needed(tmp_path, suffix):
    path = write(tmp_path / f"all{suffix}", {"text": [str(i) for i in range(10_000)]})
    with open(path, "ab") as file:
        file.write(b"\xff")
    found = stream(path).rows(0, 0)
    assert [next(found).cell for _ in range(1000)] == [str(i) for i in range(1000)]
    with pytest.raises(DataError, match=rf"^cannot read '.*all{suffix}': 'utf-8' codec"):
        list(found)


def test_the_content_that_is_not_decoded(tmp_path):
    records = DecodedRecords(
        opened(beside(tmp_path / "x.csv", {"text": list("abcd")})).train, lambda raw: torch.zeros(1)
    )
    assert records.subset([3, 1, 2]).subset([0, 2]).records.raw(1) == b"c"


def test_several_sources_are_one(tmp_path):
    one = beside(
        tmp_path / "one" / "x.csv",
        {"text": ["a", "b"], "label": ["dog", "ant"]},
        {"text": ["c"], "label": ["dog"]},
    )
    two = write(tmp_path / "two.csv", {"text": ["d", "e"], "label": ["cow", "dog"]})
    three = beside(
        tmp_path / "three" / "x.parquet", {"text": ["f"], "label": ["ant"]}, {"text": ["g"], "label": ["ant"]}
    )
    splits = opened([str(one), str(two), str(three)])
    assert not splits.held_out
    assert contents(splits.train) == list("abdef")
    assert splits.train.classes == splits.test.classes == ["ant", "cow", "dog"]
    assert [splits.train.classes[i] for i in splits.train.labels] == ["dog", "ant", "cow", "dog", "ant"]
    assert (contents(splits.test), splits.test.labels.tolist()) == (["c", "g"], [2, 0])
    names = [splits.train.name(i) for i in range(5)]
    assert names == [
        "train.csv row 0",
        "train.csv row 1",
        "two.csv row 0",
        "two.csv row 1",
        "train.parquet row 0",
    ]
    part = pickle.loads(pickle.dumps(splits.train.subset([4, 2])))
    assert (contents(part), part.name(0)) == (["f", "d"], "train.parquet row 0")
    assert contents(opened([str(one)]).train) == contents(opened(one).train)
    held = opened([str(two)] * 5)
    assert (len(held.train), len(held.test), held.held_out) == (8, 2, True)


def test_sources_without_labels_leave_those_of_others(tmp_path):
    labelled = beside(tmp_path / "one" / "x.csv", {"text": ["a", "b"], "label": ["x", "y"]})
    bare = write(tmp_path / "two.txt", {"text": ["c"]})
    half = write(tmp_path / "half.csv", {"text": ["d", "e"], "label": ["x", ""]})
    for other, labels in {bare: [0, 1, -1], half: [0, 1, 0, -1]}.items():
        splits = opened([str(labelled), str(other)])
        assert splits.train.classes == splits.test.classes == ["x", "y"]
        assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == (labels, [0, 1])
        with pytest.raises(
            DataError, match=r"two.txt has no label column|1 of 2 records of half.csv have no"
        ):
            opened([str(labelled), str(other)], require_labels=True)
    assert opened(half).train.classes == ["x"]


def test_declared_classes_of_several_sources_keep_their_order(tmp_path):
    for name, names in {"one": ["b", "a"], "two": ["c", "a"]}.items():
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        Dataset.from_dict({"text": ["1", "2"], "label": [0, 1]}, features=features).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    splits = opened([str(tmp_path / "one.parquet"), str(tmp_path / "two.parquet")])
    assert splits.train.classes == ["b", "a", "c"]


def test_several_sources_of_files(tmp_path):
    for name in ("one/1.jpg", "two/2.jpg", "two/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    sources = [str(tmp_path / name) for name in ("one", "two")]
    splits = open_records(sources, extensions=(".jpg",), content_columns=("image",))
    both = [(part.raw(i).decode(), part.name(i)) for part in splits[:2] for i in range(len(part))]
    expected = [(name, str(tmp_path / name)) for name in ("one/1.jpg", "two/2.jpg", "two/3.jpg")]
    assert sorted(both) == expected


def test_files_of_contents_are_still_found_where_cells_are_paths(tmp_path):
    (tmp_path / "own.txt").write_text("own")
    write(tmp_path / "all.csv", {"text": ["own.txt", ""], "split": ["train", "train"]})
    records = open_records(
        str(tmp_path / "all.csv"), extensions=(), content_columns=("text",), train_split="train"
    )
    names = {records.train.name(i) for i in range(2)}
    assert names == {str(tmp_path / "own.txt"), "all.csv row 1"}
    (tmp_path / "train" / "x").mkdir(parents=True)
    (tmp_path / "train" / "x" / "1.jpg").write_bytes(b"1")
    (tmp_path / "train" / "x" / "2.jpg").write_bytes(b"2")
    pictures = open_records(str(tmp_path), extensions=(".jpg",), content_columns=("text",)).train
    assert pictures.raw(0) in (b"1", b"2")  # the table beside them is none of theirs


def test_files_and_members_of_tar_files_are_contents_as_ever(tmp_path):
    for name in ("train/x/1.txt", "train/y/2.txt", "test/x/3.txt"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    splits = opened(tmp_path / "files", extensions=(".txt",))
    assert (contents(splits.train), contents(splits.test)) == (
        ["train/x/1.txt", "train/y/2.txt"],
        ["test/x/3.txt"],
    )
    assert splits.train.name(1) == str(tmp_path / "files/train/y/2.txt")
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for i in (1, 2):
            tar.add(tmp_path / "files/test/x/3.txt", f"{i}.txt")
    assert everything(tmp_path / "train.tar", extensions=(".txt",)) == ["test/x/3.txt"] * 2
    assert streamed(stream(tmp_path / "train.tar", extensions=(".txt",))) == ["test/x/3.txt"] * 2


@pytest.fixture
def broken(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.csv", {"text": ["a", "b"], "title": ["c", "d"], "n": ["1", "2"]})
    (tmp_path / "latin.csv").write_bytes("text\ncafé\n".encode("latin-1"))
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    (tmp_path / "utf16.txt").write_bytes("one\ntwo\n".encode("utf-16"))
    (tmp_path / "latin.jsonl").write_bytes('{"text": "café"}\n'.encode("latin-1"))
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud83d"}\n')
    (tmp_path / "open.csv").write_text('text\na\n"b\n')
    (tmp_path / "wide.csv").write_text("text\na\nb,c\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text('{"text": ["a"], "n": 1}\n{"text": "b"}\n')
    (tmp_path / "blank.txt").write_text("\n \n\n")
    (tmp_path / "header.csv").write_text("text\n")
    (tmp_path / "picture.gif").write_text("text\n")
    write(tmp_path / "numbers.parquet", {"text": [1, 2]})
    write(tmp_path / "lists.parquet", {"text": [["a"], ["b"]]})
    write(tmp_path / "files.parquet", {"text": [{"bytes": b"a", "path": "b"}] * 2})
    for name in ("train", "test"):
        write(tmp_path / "folder" / f"{name}.csv", {"text": ["a", "b"]})
    (tmp_path / "empty").mkdir()
    return tmp_path


# What is wrong for both ways of reading, then for opening alone.
WRONG = [
    ("good.csv", {"content_column": "txt"},
     "no content column 'txt'; available columns: text, title, n; did you mean 'text'?"),
    ("good.csv", {"content_column": "titel+text"},
     "no content column 'titel'; available columns: text, title, n; did you mean 'title'?"),
    ("good.csv", {"content_column": "text,titles"},
     "no content column 'titles'; available columns: text, title, n; did you mean 'title'?"),
    ("good.csv", {"content_column": "text+"}, "no content column ''; available columns: text, title, n"),
    ("latin.csv", {}, "cannot read 'latin.csv': 'utf-8' codec can't decode"),
    ("latin.txt", {}, "cannot read 'latin.txt': 'utf-8' codec can't decode"),
    ("latin.jsonl", {}, "cannot read 'latin.jsonl': 'utf-8' codec can't decode"),
    ("half.jsonl", {}, "cannot read 'half.jsonl': 'utf-8' codec can't encode"),
    ("open.csv", {}, "cannot read 'open.csv': unexpected end of data"),
    ("wide.csv", {}, "cannot read 'wide.csv': row 1 (from 0) does not fit the columns"),
    ("bad.jsonl", {}, "cannot read 'bad.jsonl': Expecting value"),
    ("list.jsonl", {}, "column 'text' of list.jsonl holds "),
    ("blank.txt", {}, "'blank.txt' has no records"),
    ("header.csv", {}, "'header.csv' has no records"),
    ("numbers.parquet", {}, "column 'text' of numbers.parquet holds int64, not texts"),
    ("lists.parquet", {}, "column 'text' of lists.parquet holds list<element: string>, not texts"),
    ("files.parquet", {}, "column 'text' of files.parquet holds struct<bytes: binary, path: string>, not"),
    ("gone.txt", {}, "'gone.txt' does not exist"),
    ("latin.txt", {"content_column": "body"}, "cannot read 'latin.txt'"),
]  # fmt: skip
OPENED = [
    ("picture.gif", {},
     "'picture.gif' is not a folder, Parquet file, tar file or manifest (.csv, .tsv, .jsonl, .txt)"),
    ("empty", {}, "'empty' has no .parquet, .tar, .jsonl, .csv, .tsv, .txt file, itself or in 'data'"),
    ("folder", {"train_split": "trian"},
     "no split 'trian'; available splits: test, train; did you mean 'train'?"),
    ("good.csv", {"test_split": "dev"}, "no split 'dev'; available splits: train"),
    ("good.csv", {"require_labels": True}, "good.csv has no label column 'label'"),
    ([], {}, "no source is given"),
    (["good.csv", "gone.csv"], {}, "'gone.csv' does not exist"),
    (["good.csv", "folder"], {"test_split": "test"}, "'good.csv' has no split 'test'"),
]  # fmt: skip
STREAMED = [
    ("picture.gif", {}, "'picture.gif' has no Parquet, tar, .jsonl, .csv, .tsv, .txt file to stream"),
    ("empty", {}, "'empty' has no Parquet, tar, .jsonl, .csv, .tsv, .txt file to stream"),
    ("folder", {"split": "trian"},
     "no split 'trian'; available splits: test, train; did you mean 'train'?"),
    ("good.csv", {"split": "dev"}, "no split 'dev'; available splits: train"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "options", "message"), WRONG + OPENED)
def test_errors_of_opening_are_one_line(broken, source, options, message):
    with pytest.raises(DataError) as caught:
        opened(source, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("source", "options", "message"), WRONG + STREAMED)
def test_errors_of_streaming_are_one_line(broken, source, options, message):
    with pytest.raises(DataError) as caught:
        list(stream(source, **options).rows(0, 0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_in_a_table_are_a_damaged_record(tmp_path):
    cells = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    for name in ("train", "test"):
        pq.write_table(pa.table({"text": cells}), tmp_path / f"{name}.parquet")
    records = opened(tmp_path).train
    assert records.raw(0) == b"a"
    with pytest.raises(OSError, match=r"^train.parquet row 1 is not valid UTF-8: 'utf-8' codec"):
        records.raw(1)
    assert records.name(1) == "train.parquet row 1"
    with pytest.raises(DataError, match=r"^cannot read train.parquet: UnicodeDecodeError: "):
        list(stream(tmp_path).rows(0, 0))
