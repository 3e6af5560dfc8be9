"""Scored pairs: tables of every kind, SentEval's folder, and what is wrong with a source."""

import csv
import json

import pytest
import torch

from bt_multimodal.columns import DataError
from encoders.text.pairs import check_names, open_pairs, source_name

ROWS = [("a cat", "one cat", "4.5"), ("a dog", 'the "dog', "3"), ("rain", "", "0.25"), ("a, b", "b", "1")]


def write(path, columns, rows=ROWS, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns.split(), *rows])
    return path


def opened(source, **options):
    (pairs,), missing = open_pairs(str(source), **options)
    assert missing == []
    return pairs


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


YEARS = {
    "STS12": ["MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"],
    "STS13": ["FNWN", "headlines", "OnWN"],
    "STS14": ["deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"],
    "STS15": ["answers-forums", "answers-students", "belief", "headlines", "images"],
    "STS16": ["answer-answer", "headlines", "plagiarism", "postediting", "question-question"],
}


@pytest.fixture
def downstream(tmp_path):
    """SentEval's folder: of each file three pairs, the middle one of which has no score."""
    root = tmp_path / "downstream"
    for year, files in YEARS.items():
        folder = root / "STS" / f"{year}-en-test"
        folder.mkdir(parents=True)
        for i, name in enumerate(files):
            texts = "".join(f'{name} "{j}\tsecond\u2028{j}\tfrom somewhere\n' for j in range(3))
            (folder / f"STS.input.{name}.txt").write_text(texts)
            (folder / f"STS.gs.{name}.txt").write_text(f"{i}.5\n\n{i + 1}\n")
    (root / "STS" / "STSBenchmark").mkdir()
    (root / "STS" / "STSBenchmark" / "sts-test.csv").write_text(
        "".join(f'main-captions\tMSRvid\t2012test\t{i}\t{i}.500\t"A {i}\tB {i}\tlicence\n' for i in range(4))
    )
    (root / "SICK").mkdir()
    (root / "SICK" / "SICK_test_annotated.txt").write_text(
        "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
        + "".join(f"{i}\tA {i}\tB {i}\t{i}.1\tNEUTRAL\n" for i in range(3))
    )
    return root


def test_sentevals_folder_is_seven_sets_of_all_their_pairs(downstream):
    sets, missing = open_pairs(str(downstream))
    assert missing == []
    by_name = {pairs.name: pairs for pairs in sets}
    assert list(by_name) == [*YEARS, "STS-B", "SICK-R"]
    for year, files in YEARS.items():
        pairs = by_name[year]
        assert pairs.first == [f'{name} "{j}' for name in files for j in (0, 2)]
        assert pairs.second == [f"second\u2028{j}" for _ in files for j in (0, 2)]
        assert pairs.scores.tolist() == [score for i in range(len(files)) for score in (i + 0.5, i + 1)]
    assert by_name["STS-B"].first == [f'"A {i}' for i in range(4)]
    assert by_name["STS-B"].second[3] == "B 3"
    assert by_name["STS-B"].scores.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert by_name["SICK-R"].second == ["B 0", "B 1", "B 2"]
    assert by_name["SICK-R"].scores.tolist() == [0.1, 1.1, 2.1]


def test_what_senteval_has_not_is_left_out(downstream):
    (downstream / "STS" / "STS13-en-test" / "STS.input.headlines.txt").unlink()
    (downstream / "SICK" / "SICK_test_annotated.txt").unlink()
    sets, missing = open_pairs(str(downstream))
    assert [pairs.name for pairs in sets] == ["STS12", "STS14", "STS15", "STS16", "STS-B"]
    assert missing == ["STS13 (no STS.input.headlines.txt)", "SICK-R (no SICK_test_annotated.txt)"]


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
    "no split": ((GOOD, ROWS), {"split": "dev"}, "no split 'dev'; the splits there are: train"),
    "no number": ((GOOD, [*ROWS, ("a", "b", "high")]), {}, r"score 'high' of .*file.csv row 4 \(from 0\)"),
    "empty score": ((GOOD, [("a", "b", ""), *ROWS]), {}, r"score '' of .*row 0"),
    "infinite score": ((GOOD, [*ROWS, ("a", "b", "inf")]), {}, "score 'inf' of .* is no number"),
    "two pairs": ((GOOD, ROWS[:2]), {}, "has 2 pairs; a correlation takes 3"),
    "no pairs": ((GOOD, []), {}, "has no records"),
    "one score": ((GOOD, [("a", str(i), "5.0") for i in range(4)]), {}, "has the score 5 alone"),
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


BROKEN = {
    "scores missing": ("STS.gs.FNWN.txt", "1\n2\n", "FNWN has 3 pairs but 2 scores"),
    "no tab": ("STS.input.FNWN.txt", "a\tb\na\tb\nonly one\n", r"FNWN row 2 \(from 0\) has no tab"),
    "no number": ("STS.gs.FNWN.txt", "1\n2\nx\n", r"score 'x' of STS.gs.FNWN.txt row 2"),
    "no text": ("STS.gs.FNWN.txt", b"\xff\xfe\xfa", "STS.gs.FNWN.txt is no text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_of_senteval(case, downstream):
    file, content, message = BROKEN[case]
    path = downstream / "STS" / "STS13-en-test" / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        open_pairs(str(downstream))


def test_short_lines_and_an_empty_folder(downstream, tmp_path):
    (downstream / "STS" / "STSBenchmark" / "sts-test.csv").write_text("genre\tfile\tyear\n")
    with pytest.raises(DataError, match=r"sts-test.csv row 0 \(from 0\) has 3 cells, not 7"):
        open_pairs(str(downstream))
    (tmp_path / "none" / "STS").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has none of SentEval's sets: STS12 \(no STS.input.MSRpar.txt\)"):
        open_pairs(str(tmp_path / "none"))
