"""Reading of SentEval's folder ``downstream``: scored pairs, and labelled texts and pairs.

Conneau and Kiela, "SentEval: an evaluation toolkit for universal sentence representations", 2018. Files,
columns and encodings are those that its senteval/sts.py, sick.py, binary.py, sst.py, trec.py and mrpc.py
read.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from bt_multimodal.data.columns import DataError
from encoders.text.evaluation.pairs import Pairs, checked_pairs, checked_score
from encoders.text.evaluation.transfer import LabelledTexts, Task, checked_task

T = TypeVar("T")

# The files of each year's test set; STS13 excludes SMT.
_YEARS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
# Sets with one file per class.
_CLASSES = {
    "MR": ("rt-polarity.pos", "rt-polarity.neg"),
    "CR": ("custrev.pos", "custrev.neg"),
    "SUBJ": ("subj.objective", "subj.subjective"),
    "MPQA": ("mpqa.pos", "mpqa.neg"),
}
_FOLDERS = ("STS", "SICK", *(f"{name}/{files[0]}" for name, files in _CLASSES.items()), "SST/binary",
            "TREC/train_5500.label", "MRPC/msr_paraphrase_train.txt")  # fmt: skip


def is_senteval(source: str) -> bool:
    """Returns whether a source is SentEval's folder, with at least one of its sets."""
    root = Path(source).expanduser()
    return any((root / name).exists() for name in _FOLDERS)


def open_all(
    sources: Sequence[str],
    of_folder: Callable[[str], tuple[list[T], list[str]]],
    of_other: Callable[[str], T],
) -> tuple[list[T], list[str]]:
    """Opens the sets of several sources; SentEval's folder holds several sets.

    Args:
        of_folder: opens SentEval's folder: `similarity_sets` or `transfer_tasks`.
        of_other: opens any other source.

    Returns:
        The sets, and the missing sets of SentEval's folder with the reasons.
    """
    opened: list[T] = []
    missing: list[str] = []
    for source in sources:
        if is_senteval(source):
            sets, missing_here = of_folder(source)
            opened, missing = opened + sets, missing + missing_here
        else:
            opened.append(of_other(source))
    return opened, missing


def similarity_sets(folder: str) -> tuple[list[Pairs], list[str]]:
    """Opens the seven sets of scored pairs: STS12 to STS16, STS-B and SICK-R.

    A year's set concatenates all of its files (the setting "all" of Gao et al., 2021, appendix B).

    Returns:
        The sets, and the missing sets with the reasons: ``["STS13 (no STS.input.FNWN.txt)"]``.

    Raises:
        DataError: if there is no set, or a set is damaged.
    """
    sts, sick = (Path(folder).expanduser() / name for name in ("STS", "SICK"))
    readers: dict[str, Callable[[str], Pairs]] = {
        **{year: partial(_year, sts, files) for year, files in _YEARS.items()},
        "STS-B": partial(_scored, sts / "STSBenchmark" / "sts-test.csv", (5, 6, 4), 0),
        "SICK-R": partial(_scored, sick / "SICK_test_annotated.txt", (1, 2, 3), 1),
    }
    return _read_all(folder, readers)


def transfer_tasks(folder: str) -> tuple[list[Task], list[str]]:
    """Opens the seven tasks of Gao et al., 2021, appendix E: MR, CR, SUBJ, MPQA, SST2, TREC and MRPC.

    The first four have one split, which the protocol cuts into folds. MRPC's F1 is that of paraphrases.

    Returns:
        The tasks, and the missing tasks with the reasons: ``["CR (no custrev.pos)"]``.

    Raises:
        DataError: if there is no task, or a task is damaged.
    """
    root = Path(folder).expanduser()
    readers: dict[str, Callable[[str], Task]] = {
        **{name: partial(_by_class, root, files) for name, files in _CLASSES.items()},
        "SST2": partial(_sst2, root),
        "TREC": partial(_trec, root),
        "MRPC": partial(_mrpc, root),
    }
    tasks, missing = _read_all(folder, readers)
    return [checked_task(task, task.name) for task in tasks], missing


def _read_all(folder: str, readers: Mapping[str, Callable[[str], T]]) -> tuple[list[T], list[str]]:
    sets, missing = [], []
    for name, read in readers.items():
        try:
            sets.append(read(name))
        except FileNotFoundError as error:
            missing.append(f"{name} (no {Path(error.filename).name})")
    if not sets:
        raise DataError(f"{folder!r} has none of SentEval's sets: {', '.join(missing)}")
    return sets, missing


def _year(sts: Path, files: Sequence[str], name: str) -> Pairs:
    folder = sts / f"{name}-en-test"
    first: list[str] = []
    second: list[str] = []
    scores: list[float] = []
    for file in files:
        pairs = [line.split("\t") for line in _lines(folder / f"STS.input.{file}.txt")]
        gold = _lines(folder / f"STS.gs.{file}.txt")
        if len(pairs) != len(gold):
            raise DataError(f"{folder.name} {file} has {len(pairs)} pairs but {len(gold)} scores")
        for row, (pair, score) in enumerate(zip(pairs, gold, strict=True)):
            if not score.strip():
                continue  # the pair is not scored
            if len(pair) < 2:
                raise DataError(f"{folder.name} {file} row {row} (from 0) has no tab between two sentences")
            first.append(pair[0])
            second.append(pair[1])
            scores.append(checked_score(score, f"STS.gs.{file}.txt", row))
    return checked_pairs(name, first, second, scores, str(folder))


def _scored(path: Path, columns: Sequence[int], header: int, name: str) -> Pairs:
    first, second, scores = _cells(path, columns, header)
    return checked_pairs(name, first, second, scores, str(path))


def _by_class(root: Path, files: Sequence[str], name: str) -> Task:
    """Reads a task with one file of texts per class; the class is the file's ending."""
    by_class = {file.rpartition(".")[2]: _lines(root / name / file, "latin-1") for file in files}
    texts = [_tidied(line) for lines in by_class.values() for line in lines]
    labels = np.repeat([*by_class], [len(lines) for lines in by_class.values()])
    return Task(name, LabelledTexts([texts], labels))


def _sst2(root: Path, name: str) -> Task:
    def split(file: str) -> LabelledTexts:
        texts, labels = _cells(root / "SST" / "binary" / file, (0, 1), 0)
        return LabelledTexts(
            [[_tidied(text) for text in texts]], np.array([label.strip() for label in labels])
        )

    train, validation, test = (split(f"sentiment-{part}") for part in ("train", "dev", "test"))
    return Task(name, train, validation, test)


def _trec(root: Path, name: str) -> Task:
    def split(file: str) -> LabelledTexts:
        texts, labels = [], []
        for row, line in enumerate(_lines(root / "TREC" / file, "latin-1")):
            # "LOC:city What ...": the coarse class, the fine class, the question
            label, colon, rest = line.partition(":")
            _, space, text = rest.partition(" ")
            if not (colon and space):
                raise DataError(f"{file} row {row} (from 0) is not a class and a question: {line!r:.60}")
            texts.append(_tidied(text))
            labels.append(label)
        return LabelledTexts([texts], np.array(labels))

    return Task(name, split("train_5500.label"), test=split("TREC_10.label"))


def _mrpc(root: Path, name: str) -> Task:
    def split(file: str) -> LabelledTexts:
        labels, *pairs = _cells(root / "MRPC" / file, (0, 3, 4), 1)
        return LabelledTexts([[_tidied(text) for text in texts] for texts in pairs], np.array(labels))

    train, test = (split(f"msr_paraphrase_{part}.txt") for part in ("train", "test"))
    return Task(name, train, test=test, positive="1")


def _cells(path: Path, columns: Sequence[int], header: int) -> list[list[str]]:
    """Reads columns of an unquoted tab-separated table, without its ``header`` first rows."""
    rows = [line.split("\t") for line in _lines(path)][header:]
    for row, cells in enumerate(rows):
        if len(cells) <= max(columns):
            raise DataError(
                f"{path} row {row} (from 0) has {len(cells)} cells, not {max(columns) + 1} or more"
            )
    return [[cells[i] for cells in rows] for i in columns]


def _lines(path: Path, encoding: str = "utf-8-sig") -> list[str]:
    try:
        lines = path.read_text(encoding=encoding).split("\n")  # splitlines() would split at more characters
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}") from error
    return lines if lines[-1] else lines[:-1]


def _tidied(text: str) -> str:
    """Returns the text as SentEval passes it on: its words, separated by single spaces."""
    return " ".join(text.split())
