"""Opening tables of pairs of sentences with scores of how close their meanings are."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bt_multimodal.data.columns import DataError, check_contents, find_column, there_are
from bt_multimodal.data.tables import TEST_SPLITS, SourceOptions, find_splits

_COLUMNS = (
    ("first sentence", ("sentence1", "sent1", "text1", "sentence_a", "sentence_A")),
    ("second sentence", ("sentence2", "sent2", "text2", "sentence_b", "sentence_B")),
    ("score", ("score", "similarity_score", "relatedness_score", "similarity", "label")),
)


class Pairs(NamedTuple):
    """``N`` pairs of sentences and ``scores [N]`` float64, higher for closer meanings."""

    name: str
    first: list[str]
    second: list[str]
    scores: Tensor


def open_pairs(source: str, columns: Sequence[str] | None = None, split: str | None = None) -> Pairs:
    """The pairs of a source.

    Args:
        source: a file of rows (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), a folder of them named
            after their splits, or a hub dataset ``owner/name``, and ``:config``.
        columns: those of the two sentences and of the score, by default ``sentence1``, ``sentence2`` and
            ``score``, or other usual names.
        split: by default ``test`` or, without one, the validation split or the only one.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    options = SourceOptions((), None, ("sentence1",), None, splits_named=True, inline=True)
    splits = find_splits(source, options, {})
    name = split or next((one for one in TEST_SPLITS if one in splits), None)
    if name is None and len(splits) == 1:
        name = next(iter(splits))
    if name not in splits:
        wanted = name or "test"
        raise DataError(f"{source!r} has no split {wanted!r}; {there_are('splits', [wanted], [*splits])}")
    return _from_table(source_name(source), splits[name].load(), splits[name].origin, columns)


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
    return checked_pairs(name, first, second, cells[2], origin)


def _text(cell: str | bytes | None) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else cell or ""


def checked_pairs(
    name: str, first: list[str], second: list[str], scores: Sequence[Any], origin: str
) -> Pairs:
    """Pairs whose scores, as they were read, are numbers that something can correlate with.

    Raises:
        DataError: a score that is no number, scores that are all the same, or fewer than three.
    """
    read = [checked_score(score, origin, row) for row, score in enumerate(scores)]
    numbers = torch.tensor(read, dtype=torch.float64)
    if len(numbers) < 3:
        raise DataError(f"{origin} has {len(numbers)} pairs; a correlation takes 3 or more")
    if (numbers == numbers[0]).all():
        raise DataError(f"{origin} has the score {numbers[0]:g} alone: nothing correlates with a constant")
    return Pairs(name, first, second, numbers)


def checked_score(score: Any, origin: str, row: int) -> float:
    """A score, as it was read from ``row`` of ``origin``, as a finite number.

    Raises:
        DataError: it is none.
    """
    try:
        if math.isfinite(number := float(score)):
            return number
    except (TypeError, ValueError):
        pass
    raise DataError(f"the score {score!r:.60} of {origin} row {row} (from 0) is no number")
