"""Opening pairs of sentences with scores of how close their meanings are: tables, and SentEval's folder."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bt_multimodal.columns import DataError, check_contents, find_column, there_are
from bt_multimodal.tables import TEST_SPLITS, Asked, find_splits

_COLUMNS = (
    ("first sentence", ("sentence1", "sent1", "text1", "sentence_a", "sentence_A")),
    ("second sentence", ("sentence2", "sent2", "text2", "sentence_b", "sentence_B")),
    ("score", ("score", "similarity_score", "relatedness_score", "similarity", "label")),
)
# The files of each year's test set that SentEval takes (its senteval/sts.py); STS13 without SMT.
_YEARS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}


class Pairs(NamedTuple):
    """``N`` pairs of sentences and ``scores [N]`` float64, higher for closer meanings."""

    name: str
    first: list[str]
    second: list[str]
    scores: Tensor


def open_pairs(
    source: str, columns: Sequence[str] | None = None, split: str | None = None
) -> tuple[list[Pairs], list[str]]:
    """The sets of pairs of a source.

    Args:
        source: a file of rows (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), a folder of them named
            after their splits, or a hub dataset ``owner/name``, and ``:config``; or the folder
            ``downstream`` of SentEval, which is seven sets. A year's set is all of its files one after
            the other (the setting "all" of Gao et al., 2021, appendix B).
        columns: those of the two sentences and of the score, by default ``sentence1``, ``sentence2`` and
            ``score``, or other usual names.
        split: by default ``test`` or, without one, the validation split or the only one.

    Returns:
        The sets, and why others of SentEval's were left out: ``["STS13 (no STS.input.FNWN.txt)"]``.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    root = Path(source).expanduser()
    if (root / "STS").is_dir() or (root / "SICK").is_dir():
        return _senteval(root)
    asked = Asked((), None, ("sentence1",), None, named=True, inline=True)
    splits = find_splits(source, asked, {})
    name = split or next((one for one in TEST_SPLITS if one in splits), None)
    if name is None and len(splits) == 1:
        name = next(iter(splits))
    if name not in splits:
        wanted = name or "test"
        raise DataError(f"{source!r} has no split {wanted!r}; {there_are('splits', [wanted], [*splits])}")
    return [_from_table(source_name(source), splits[name].load(), splits[name].origin, columns)], []


def source_name(source: str) -> str:
    """How a source is called in a table: a folder's name, that of a file with its folder's, or as it is."""
    path = Path(source).expanduser().resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}" if path.exists() else source


def check_names(names: Sequence[str]) -> None:
    """Refuse columns of one name.

    Raises:
        DataError: which name it is.
    """
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"two sets are called {twice[0]!r}: evaluate them one by one")


def _from_table(name: str, table: Any, origin: str, columns: Sequence[str] | None) -> Pairs:
    if not len(table):
        raise DataError(f"{origin} has no records")
    asked = [None] * len(_COLUMNS) if columns is None else list(columns)
    if len(asked) != len(_COLUMNS):
        raise DataError(f"columns are those of two sentences and a score, not {','.join(columns or ())!r}")
    found = [
        find_column(kind, own, known, table.column_names, origin)
        for own, (kind, known) in zip(asked, _COLUMNS, strict=True)
    ]
    schema = table.data.schema
    check_contents({column: schema.field(column).type for column in found[:2]}, origin, inline=True)
    cells = [table.with_format("arrow")[:].column(column).to_pylist() for column in found]
    first, second = ([_text(cell) for cell in column] for column in cells[:2])
    return _checked(name, first, second, cells[2], origin)


def _text(cell: str | bytes | None) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else cell or ""


def _checked(name: str, first: list[str], second: list[str], scores: Sequence[Any], origin: str) -> Pairs:
    read = [_number(score, origin, row) for row, score in enumerate(scores)]
    numbers = torch.tensor(read, dtype=torch.float64)
    if len(numbers) < 3:
        raise DataError(f"{origin} has {len(numbers)} pairs; a correlation takes 3 or more")
    if (numbers == numbers[0]).all():
        raise DataError(f"{origin} has the score {numbers[0]:g} alone: nothing correlates with a constant")
    return Pairs(name, first, second, numbers)


def _number(score: Any, origin: str, row: int) -> float:
    try:
        if math.isfinite(number := float(score)):
            return number
    except (TypeError, ValueError):
        pass
    raise DataError(f"the score {score!r:.60} of {origin} row {row} (from 0) is no number")


def _senteval(root: Path) -> tuple[list[Pairs], list[str]]:
    found, missing = [], []

    def add(name: str, read: Callable[..., Pairs], *where: Any) -> None:
        try:
            found.append(read(*where))
        except FileNotFoundError as error:
            missing.append(f"{name} (no {Path(error.filename).name})")

    for name, files in _YEARS.items():
        add(name, _year, root / "STS" / f"{name}-en-test", name, files)
    add("STS-B", _tabbed, root / "STS" / "STSBenchmark" / "sts-test.csv", "STS-B", (5, 6, 4), 0)
    add("SICK-R", _tabbed, root / "SICK" / "SICK_test_annotated.txt", "SICK-R", (1, 2, 3), 1)
    if not found:
        raise DataError(f"{str(root)!r} has none of SentEval's sets: {', '.join(missing)}")
    return found, missing


def _year(folder: Path, name: str, files: Sequence[str]) -> Pairs:
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
                continue  # nobody has scored it
            if len(pair) < 2:
                raise DataError(f"{folder.name} {file} row {row} (from 0) has no tab between two sentences")
            first.append(pair[0])
            second.append(pair[1])
            scores.append(_number(score, f"STS.gs.{file}.txt", row))
    return _checked(name, first, second, scores, str(folder))


def _tabbed(path: Path, name: str, at: tuple[int, int, int], header: int) -> Pairs:
    """Tab-separated cells without quotes, below a header: the places of the sentences and of the score."""
    rows = [line.split("\t") for line in _lines(path)][header:]
    for row, cells in enumerate(rows):
        if len(cells) <= max(at):
            raise DataError(f"{path} row {row} (from 0) has {len(cells)} cells, not {max(at) + 1} or more")
    first, second, scores = ([cells[i] for cells in rows] for i in at)
    return _checked(name, first, second, scores, str(path))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # and nowhere else
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: {error}") from error
    return lines if lines[-1] else lines[:-1]
