"""SentEval's folder: which sets it is, their texts, labels and scores, and what is wrong with a file."""

import pytest

from bt_multimodal.data.columns import DataError
from encoders.text.evaluation.senteval_folder import is_senteval, similarity_sets, transfer_tasks

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
            (folder / f"STS.input.{name}.txt").write_text(texts, encoding="utf-8")
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
    sets, missing = similarity_sets(str(downstream))
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
    sets, missing = similarity_sets(str(downstream))
    assert [pairs.name for pairs in sets] == ["STS12", "STS14", "STS15", "STS16", "STS-B"]
    assert missing == ["STS13 (no STS.input.headlines.txt)", "SICK-R (no SICK_test_annotated.txt)"]


BROKEN_PAIRS = {
    "scores missing": ("STS.gs.FNWN.txt", "1\n2\n", "FNWN has 3 pairs but 2 scores"),
    "no tab": ("STS.input.FNWN.txt", "a\tb\na\tb\nonly one\n", r"FNWN row 2 \(from 0\) has no tab"),
    "no number": ("STS.gs.FNWN.txt", "1\n2\nx\n", r"score 'x' of STS.gs.FNWN.txt row 2"),
    "no text": ("STS.gs.FNWN.txt", b"\xff\xfe\xfa", "STS.gs.FNWN.txt is not text"),
}


@pytest.mark.parametrize("case", BROKEN_PAIRS)
def test_broken_files_of_pairs(case, downstream):
    file, content, message = BROKEN_PAIRS[case]
    path = downstream / "STS" / "STS13-en-test" / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        similarity_sets(str(downstream))


def test_short_lines_and_an_empty_folder(downstream, tmp_path):
    (downstream / "STS" / "STSBenchmark" / "sts-test.csv").write_text("genre\tfile\tyear\n")
    with pytest.raises(DataError, match=r"sts-test.csv row 0 \(from 0\) has 3 cells, not 7"):
        similarity_sets(str(downstream))
    (tmp_path / "none" / "STS").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has none of SentEval's sets: STS12 \(no STS.input.MSRpar.txt\)"):
        similarity_sets(str(tmp_path / "none"))


@pytest.fixture
def labelled(tmp_path):
    """SentEval's folder of labelled texts: odd spaces, quotes, characters of each file's encoding."""
    root = tmp_path / "downstream"
    files = {
        "MR/rt-polarity.pos": 'a "caf\xe9 ,  good\nfine \x85 film\n\n',
        "MR/rt-polarity.neg": "dull .\n",
        "CR/custrev.pos": "works\n",
        "CR/custrev.neg": "broken\r\nlate",
        "SUBJ/subj.objective": "it rains\n",
        "SUBJ/subj.subjective": "it charms\n",
        "MPQA/mpqa.pos": "glad\n",
        "MPQA/mpqa.neg": "sad\nsorry\n",
        "TREC/train_5500.label": "DESC:manner How did  serfdom ?\nLOC:city What caf\xe9 : where ?\n",
        "TREC/TREC_10.label": "LOC:other Where ?\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode("latin-1"))
    (root / "SST" / "binary").mkdir(parents=True)
    for split, rows in (
        ("train", 'moving \u2026 film\t1\n"dull\t0\n'),
        ("dev", "so so\t0\n"),
        ("test", "great\t1\r\n"),
    ):
        (root / "SST" / "binary" / f"sentiment-{split}").write_bytes(rows.encode())
    (root / "MRPC").mkdir()
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    for split, rows in (
        ("train", '1\t7\t8\tHe "said .\tHe  spoke .\r\n0\t1\t2\tA\tB\n'),
        ("test", "1\t3\t4\tC\tD\n"),
    ):
        (root / "MRPC" / f"msr_paraphrase_{split}.txt").write_bytes((header + rows).encode())
    return root


def parts(task):
    return [None if part is None else (part.texts, part.labels.tolist()) for part in task[1:4]]


def test_the_transfer_tasks(labelled):
    tasks, missing = transfer_tasks(str(labelled))
    assert missing == []
    by_name = {task.name: parts(task) for task in tasks}
    assert by_name == {
        "MR": [
            ([["a \"caf\xe9 , good", "fine film", "", "dull ."]], ["pos", "pos", "pos", "neg"]), None, None
        ],
        "CR": [([["works", "broken", "late"]], ["pos", "neg", "neg"]), None, None],
        "SUBJ": [([["it rains", "it charms"]], ["objective", "subjective"]), None, None],
        "MPQA": [([["glad", "sad", "sorry"]], ["pos", "neg", "neg"]), None, None],
        "SST2": [
            ([["moving \u2026 film", '"dull']], ["1", "0"]), ([["so so"]], ["0"]), ([["great"]], ["1"])
        ],
        "TREC": [
            ([["How did serfdom ?", "What caf\xe9 : where ?"]], ["DESC", "LOC"]),
            None, ([["Where ?"]], ["LOC"]),
        ],
        "MRPC": [
            ([['He "said .', "A"], ["He spoke .", "B"]], ["1", "0"]), None, ([["C"], ["D"]], ["1"])
        ],
    }  # fmt: skip
    assert [task.positive for task in tasks] == [None] * 6 + ["1"]


def test_tasks_that_are_not_there_are_left_out(labelled):
    (labelled / "CR" / "custrev.neg").unlink()
    (labelled / "SST" / "binary" / "sentiment-dev").unlink()
    tasks, missing = transfer_tasks(str(labelled))
    assert [task.name for task in tasks] == ["MR", "SUBJ", "MPQA", "TREC", "MRPC"]
    assert missing == ["CR (no custrev.neg)", "SST2 (no sentiment-dev)"]


def test_which_folders_are_sentevals(labelled, downstream, tmp_path):
    assert is_senteval(str(labelled))
    assert is_senteval(str(downstream))
    for name in ("TREC", "CR", "trec"):  # a user's own
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "train.csv").write_text("text,label\n")
    assert not is_senteval(str(tmp_path / "own"))
    assert not is_senteval("glue:sst2")


BROKEN_TASKS = {
    "no class": ("TREC/train_5500.label", "DESC:manner How ?\nWhat ?\n", "train_5500.label row 1"),
    "no question": ("TREC/TREC_10.label", "LOC:other\n", "is not a class and a question: 'LOC:other'"),
    "new class": ("TREC/TREC_10.label", "NUM:date When ?\n", "class 'NUM' of TREC is not in the train"),
    "no label": ("SST/binary/sentiment-dev", "so so\n", r"sentiment-dev row 0 \(from 0\) has 1 cells, not 2"),
    "no pair": ("MRPC/msr_paraphrase_test.txt", "h\n1\t3\t4\tC\n", r"row 0 \(from 0\) has 4 cells, not 5"),
    "no text": ("SST/binary/sentiment-test", b"\xff\xfe\xfa", "sentiment-test is not text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_TASKS)
def test_broken_files_of_tasks(case, labelled):
    file, content, message = BROKEN_TASKS[case]
    (labelled / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as found:
        transfer_tasks(str(labelled))
    assert "\n" not in str(found.value)


def test_a_folder_without_tasks(downstream):
    with pytest.raises(DataError, match=r"has none of SentEval's sets: MR \(no rt-polarity.pos\), CR"):
        transfer_tasks(str(downstream))
