"""Scored pairs: tables of every kind, and what is wrong with a source."""

import csv
import json

import pytest
import torch

from bt_multimodal.data.columns import DataError
from encoders.text.evaluation.pairs import check_names, open_pairs, source_name

ROWS = [("a cat", "one cat", "4.5"), ("a dog", 'the "dog', "3"), ("rain", "", "0.25"), ("a, b", "b", "1")]


def write(path, columns, rows=ROWS, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns.split(), *rows])
    return path


def opened(source, **options):
    return open_pairs(str(source), **options)


@pytest.mark.parametrize(
    "columns",
    ["sentence1 sentence2 score", "sent1 sent2 similarity", "text1 text2 similarity_score",
     "sentence_A sentence_B relatedness_score", "sentence_a sentence_b label"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_kinds_of_files_and_names_of_columns(tmp_path, kind, columns):
    from datasets import Dataset

    path = tmp_path / f"pairs{kind}"
    rows = [dict(zip(columns.split(), row, strict=True)) for row in ROWS]
    if kind in (".csv", ".tsv"):
        write(path, columns, delimiter="\t" if kind == ".tsv" else ",")
    else:
        rows = [{**row, columns.split()[2]: float(row[columns.split()[2]])} for row in rows]
        if kind == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            Dataset.from_list(rows).to_parquet(path)
    pairs = opened(path)
    assert pairs.first == [row[0] for row in ROWS]
    assert pairs.second == [row[1] for row in ROWS]
    assert torch.equal(pairs.scores, torch.tensor([4.5, 3, 0.25, 1], dtype=torch.float64))
    assert pairs.name == f"{tmp_path.name}/pairs"


def test_columns_and_splits_by_name(tmp_path):
    columns = "sentence1 sentence2 score"
    for i, split in enumerate(("train", "validation", "test")):
        write(tmp_path / "sts" / f"{split}.csv", columns, [*ROWS, (split, split, str(i))])
    assert opened(tmp_path / "sts").first[-1] == "test"
    assert opened(tmp_path / "sts", split="train").first[-1] == "train"
    (tmp_path / "sts" / "test.csv").unlink()
    assert opened(tmp_path / "sts").first[-1] == "validation"
    odd = write(tmp_path / "odd.csv", "left right score gold", [(*row, str(i)) for i, row in enumerate(ROWS)])
    assert opened(odd, columns=["right", "left", "gold"]).scores.tolist() == [0, 1, 2, 3]
    assert opened(odd, columns=["right", "left", "gold"]).first[0] == "one cat"


@pytest.mark.shared
def test_sts_benchmark(shared):
    pairs = opened(shared / "data" / "text" / "stsb")
    assert pairs.name == "stsb"
    assert len(pairs.scores) == len(pairs.first) == len(pairs.second) == 1379
    assert pairs.first[0] == "A girl is styling her hair."
    assert pairs.scores[:2].tolist() == [2.5, 3.6]


def test_names_of_columns(tmp_path):
    assert source_name("glue:stsb") == "glue:stsb"
    check_names(["a", "b"])
    with pytest.raises(DataError, match="two sets are called 'a'"):
        check_names(["a", "b", "a"])


GOOD = "sentence1 sentence2 score"
WRONG = {
    "no such file": (None, {}, r"nowhere.csv' does not exist"),
    "no score": (("sentence1 sentence2 scores", ROWS), {}, "no score column .* did you mean 'scores'"),
    "no pair": (("sentence1 sentense2 score", ROWS), {}, "no second sentence column .* 'sentense2'"),
    "not that column": ((GOOD, ROWS), {"columns": ["sentence1", "sentence2", "gold"]}, "score column 'gold'"),
    "two columns": (
        (GOOD, ROWS),
        {"columns": ["sentence1", "score"]},
        "two sentences and a score, not 'sent",
    ),
    "no split": ((GOOD, ROWS), {"split": "dev"}, "no split 'dev'; available splits: train"),
    "no number": ((GOOD, [*ROWS, ("a", "b", "high")]), {}, r"score 'high' of .*file.csv row 4 \(from 0\)"),
    "empty score": ((GOOD, [("a", "b", ""), *ROWS]), {}, r"score '' of .*row 0"),
    "infinite score": ((GOOD, [*ROWS, ("a", "b", "inf")]), {}, "score 'inf' of .* is not a finite number"),
    "two pairs": ((GOOD, ROWS[:2]), {}, "has 2 pairs; a correlation needs 3"),
    "no pairs": ((GOOD, []), {}, "has no records"),
    "one score": (
        (GOOD, [("a", str(i), "5.0") for i in range(4)]),
        {},
        "has only the score 5: nothing correlates",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs(case, tmp_path):
    content, options, message = WRONG[case]
    path = tmp_path / "nowhere.csv" if content is None else write(tmp_path / "file.csv", *content)
    with pytest.raises(DataError, match=message) as found:
        open_pairs(str(path), **options)
    assert "\n" not in str(found.value)


def test_sentences_that_are_no_texts(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"sentence1": [1, 2, 3], "sentence2": ["a"] * 3, "score": [1, 2, 3]}).to_parquet(
        tmp_path / "numbers.parquet"
    )
    with pytest.raises(DataError, match=r"'sentence1' of numbers.parquet holds int64, not texts"):
        open_pairs(str(tmp_path / "numbers.parquet"))
