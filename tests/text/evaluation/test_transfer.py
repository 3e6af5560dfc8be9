"""Sources of labelled texts with all their splits, and the table of the protocol on them."""

import csv

import numpy as np
import pytest

from bt_multimodal.data.columns import DataError
from encoders.text.evaluation.senteval import Samples, pair_features, protocol
from encoders.text.evaluation.transfer import open_task, transfer_table

WORDS = {"good": ["fine", "great", "warm"], "bad": ["dull", "cold", "weak"]}


def write(path, rows, columns="text,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def reviews(count, seed=0):
    """Every third of them says the contrary."""
    random = np.random.default_rng(seed)
    for i in range(count):
        label = ("good", "bad")[i % 2]
        yield (
            " ".join([*random.choice(WORDS[label], 2), *random.choice(WORDS[("bad", "good")[i % 2]], i % 3)]),
            label,
        )


def encode(texts):
    """How often every letter is there."""
    return np.array([[text.count(letter) for letter in "abcdefgilmnrtuw"] for text in texts], np.float32)


def measured(part):
    return Samples(encode(part[0]), np.array(part[1]))


def columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def test_the_splits_that_there_are(tmp_path):
    made = {name: list(reviews(n, n)) for name, n in (("train", 40), ("validation", 20), ("test", 30))}
    for name, rows in made.items():
        write(tmp_path / "three" / f"{name}.csv", rows)
        if name != "validation":
            write(tmp_path / "two" / f"{name}.csv", rows)
    write(tmp_path / "one" / "train.csv", made["train"])
    write(tmp_path / "val" / "train.csv", made["train"])
    write(tmp_path / "val" / "validation.csv", made["validation"])
    write(tmp_path / "file.csv", made["train"])
    expected = {
        "three": ("train", "validation", "test"), "two": ("train", None, "test"),
        "one": ("train", None, None), "val": ("train", None, "validation"), "file.csv": ("train", None, None),
    }  # fmt: skip
    for source, names in expected.items():
        task = open_task(str(tmp_path / source))
        for part, name in zip(task[1:4], names, strict=True):
            assert (part is None) == (name is None)
            if part is not None:
                texts, labels = columns(made[name])
                assert part.texts == [texts]
                assert part.labels.tolist() == labels
    assert open_task(str(tmp_path / "three")).name == "three"
    assert open_task(str(tmp_path / "file.csv")).name == f"{tmp_path.name}/file"


def test_folders_of_texts_and_declared_classes(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    for i, (text, label) in enumerate(reviews(6)):
        (tmp_path / "folder" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / label / f"{i}.txt").write_text(text)
    task = open_task(str(tmp_path / "folder"))
    found = sorted(zip(task.train.texts[0], task.train.labels.tolist(), strict=True))
    assert found == sorted(reviews(6))
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"sentence": ["a", "b", "c"], "label": [1, 0, 1]}, features=features).to_parquet(
        tmp_path / "glue.parquet"
    )
    assert open_task(str(tmp_path / "glue.parquet")).train.labels.tolist() == ["yes", "no", "yes"]


def test_the_table_is_the_protocol(tmp_path):
    three, one = tmp_path / "three", tmp_path / "one"
    made = {name: list(reviews(n, n)) for name, n in (("train", 40), ("validation", 20), ("test", 30))}
    for name, rows in made.items():
        write(three / f"{name}.csv", rows)
    write(one / "train.csv", made["train"])
    tasks = [open_task(str(source)) for source in (three, one)]
    table = transfer_table(tasks, {"letters": encode}, width=3, folds=4)
    assert list(table.rows) == ["TF-IDF", "TF-IDF's SVD (3)", "letters"]
    row = table.rows["letters"]
    split = [measured(columns(made[name])) for name in ("train", "validation", "test")]
    values = [protocol(*split).accuracy, protocol(split[0], folds=4).accuracy]
    assert 60 < values[0] < 100
    assert row == {"three": (values[0], None), "one": (values[1], None), "average": (sum(values) / 2, None)}
    assert table.rows["TF-IDF"]["three"][0] > 60
    assert table.title == (
        "SentEval's protocol, three: 40 to train, 30 to test, C by 20 to validate; "
        "one: 40 in 4 folds, C by 4 folds of each training part"
    )
    assert table.measure == "accuracy in %"


def test_pairs(tmp_path):
    rows = [(a, b, str(int(x == y))) for (a, x), (b, y) in zip(reviews(60), reviews(90, 1), strict=False)]
    rows = [(a, b, str(i // 2 % 2)) for i, (a, b, _) in enumerate(rows)]
    source = tmp_path / "pairs"
    write(source / "train.csv", rows[:40], "sentence1,sentence2,label")
    write(source / "test.csv", rows[40:], "sentence1,sentence2,label")
    task = open_task(str(source))
    first, second, labels = columns(rows[:40])
    assert task.train.texts == [first, second]
    assert task.train.labels.tolist() == labels
    table = transfer_table([task], {"letters": encode}, width=3, folds=4)
    train, test = (
        Samples(pair_features(encode(a), encode(b)), np.array(y))
        for a, b, y in (columns(rows[:40]), columns(rows[40:]))
    )
    assert table.rows["letters"] == {"pairs": (protocol(train, test=test, folds=4).accuracy, None)}
    assert table.title.endswith("pairs: 40 to train, 20 to test, C by 4 folds")
    # one text of each pair alone, by name
    assert open_task(str(source), "sentence2").train.texts == [second]
    assert open_task(str(source), "sentence1+sentence2").train.texts == [
        [f"{a} {b}".strip() for a, b in zip(first, second, strict=True)]
    ]


def test_an_f1_has_a_column_of_its_own_and_no_part_in_the_average(tmp_path):
    made = {
        name: write(tmp_path / "a" / f"{name}.csv", reviews(n, n))
        for name, n in (("train", 40), ("test", 31))
    }
    one = open_task(str(made["train"].parent))
    two = one._replace(name="b", positive="good")
    row = transfer_table([one, two], {"letters": encode}, width=3, folds=4).rows["letters"]
    assert list(row) == ["a", "b", "b F1", "average"]
    split = [measured(columns(list(reviews(n, n)))) for n in (40, 31)]
    found = protocol(split[0], test=split[1], folds=4, positive="good")
    assert row["b"] == row["a"] == row["average"] == (found.accuracy, None)
    assert row["b F1"] == (found.f1, None)
    assert found.f1 != found.accuracy


@pytest.mark.shared
def test_published_sets(shared):
    trec = open_task(str(shared / "data" / "text" / "trec"))
    assert (len(trec.train.labels), trec.validation, len(trec.test.labels)) == (5452, None, 500)
    sst2 = open_task(str(shared / "data" / "text" / "sst2"))
    assert [len(part.labels) for part in sst2[1:4]] == [6920, 872, 1821]


GOOD = list(reviews(12))
WRONG = {
    "no such file": (None, {}, r"nowhere.csv' does not exist"),
    "no labels": (("text,lable", GOOD), {}, "no label column .*; did you mean 'lable'"),
    "no texts": (("txt,label", GOOD), {}, "no content column .*; did you mean 'text'|did you mean 'txt'"),
    "not that column": (("text,label", GOOD), {"label_column": "y"}, "no label column 'y'"),
    "a label missing": (("text,label", [*GOOD, ("a", "")]), {}, "1 of 13 records of file.csv have no label"),
    "no records": (("text,label", []), {}, "has no records"),
    "three texts": (("a,b,c,label", [("1", "2", "3", "4")]), {"content_column": "a,b,c"}, "3 texts are not "),
    "new class": (
        ("text,label,split", [*((*row, "train") for row in GOOD), ("a", "odd", "test")]), {},
        "class 'odd' of .* is not in the training split",
    ),
    "no train": (
        ("text,label,split", [("a", "good", "test"), ("b", "bad", "dev")]), {},
        "no split 'train': it has test, dev",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs(case, tmp_path):
    content, options, message = WRONG[case]
    path = tmp_path / "nowhere.csv"
    if content is not None:
        path = write(tmp_path / "file.csv", content[1], content[0])
    with pytest.raises(DataError, match=message) as found:
        open_task(str(path), **options)
    assert "\n" not in str(found.value)


def test_two_of_one_name(tmp_path):
    task = open_task(str(write(tmp_path / "a.csv", GOOD)))
    with pytest.raises(DataError, match="two sets are called"):
        transfer_table([task, task], {"letters": encode}, 2)
