"""Opening of tables of sentence pairs with similarity scores."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bt_multimodal.data.columns import DataError, check_contents, find_column, there_are
from bt_multimodal.data.sources.split_names import TEST, VALIDATION, by_role
from bt_multimodal.data.sources.tables import SourceOptions, find_splits

_COLUMNS = (
    ("first sentence", ("sentence1", "sent1", "text1", "sentence_a", "sentence_A")),
    ("second sentence", ("sentence2", "sent2", "text2", "sentence_b", "sentence_B")),
    ("score", ("score", "similarity_score", "relatedness_score", "similarity", "label")),
)


class Pairs(NamedTuple):
    """``N`` pairs of sentences and ``scores [N]`` float64, higher for more similar meanings."""

    name: str
    first: list[str]
    second: list[str]
    scores: Tensor


def open_pairs(source: str, columns: Sequence[str] | None = None, split: str | None = None) -> Pairs:
    """Opens the pairs of a source.

    Args:
        source: a table file (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), a folder of such files named
            after their splits, or a hub data set ``owner/name``, optionally with ``:config``.
        columns: names of the columns of the two sentences and the score, by default ``sentence1``,
            ``sentence2`` and ``score`` or other common names.
        split: name of the split; by default ``test``, else the validation split, else the only split.

    Raises:
        DataError: says in one line what is wrong with the source.
    """
    options = SourceOptions((), None, ("sentence1",), None, splits_named=True, inline=True)
    splits = find_splits(source, options, {}).splits
    roles = by_role([*splits])
    name = split or next(iter(roles[TEST] + roles[VALIDATION]), None)
    if name is None and len(splits) == 1:
        name = next(iter(splits))
    if name not in splits:
        missing = name or "test"
        raise DataError(f"{source!r} has no split {missing!r}; {there_are('splits', [missing], [*splits])}")
    return _from_table(source_name(source), splits[name].load(), splits[name].origin, columns)


def source_name(source: str) -> str:
    """Returns a source's name in tables: of a folder ``NAME``, of a file ``FOLDER/NAME``, else the source."""
    path = Path(source).expanduser().resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}" if path.exists() else source


def check_names(names: Sequence[str]) -> None:
    """Checks that the names of a table's columns differ.

    Raises:
        DataError: if two are equal.
    """
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise DataError(f"two sets are called {duplicates[0]!r}: evaluate them one by one")


def _from_table(name: str, table: Any, origin: str, columns: Sequence[str] | None) -> Pairs:
    if not len(table):
        raise DataError(f"{origin} has no records")
    requested = [None] * len(_COLUMNS) if columns is None else list(columns)
    if len(requested) != len(_COLUMNS):
        raise DataError(
            f"columns must be those of two sentences and a score, not {','.join(columns or ())!r}"
        )
    names = [
        find_column(kind, column, known, table.column_names, origin)
        for column, (kind, known) in zip(requested, _COLUMNS, strict=True)
    ]
    schema = table.data.schema
    check_contents({column: schema.field(column).type for column in names[:2]}, origin, inline=True)
    cells = [table.with_format("arrow")[:].column(column).to_pylist() for column in names]
    first, second = ([_text(cell) for cell in column] for column in cells[:2])
    return checked_pairs(name, first, second, cells[2], origin)


def _text(cell: str | bytes | None) -> str:
    return cell.decode(errors="replace") if isinstance(cell, bytes) else cell or ""


def checked_pairs(
    name: str, first: list[str], second: list[str], scores: Sequence[Any], origin: str
) -> Pairs:
    """Returns pairs after a check that a correlation with their scores is defined.

    Raises:
        DataError: if a score is not a number, all scores are equal, or there are fewer than three.
    """
    checked = [checked_score(score, origin, row) for row, score in enumerate(scores)]
    values = torch.tensor(checked, dtype=torch.float64)
    if len(values) < 3:
        raise DataError(f"{origin} has {len(values)} pairs; a correlation needs 3 or more")
    if (values == values[0]).all():
        raise DataError(f"{origin} has only the score {values[0]:g}: nothing correlates with a constant")
    return Pairs(name, first, second, values)


def checked_score(score: Any, origin: str, row: int) -> float:
    """Returns a score, read from ``row`` of ``origin``, as a finite number.

    Raises:
        DataError: if it is not a finite number.
    """
    try:
        if math.isfinite(number := float(score)):
            return number
    except (TypeError, ValueError):
        pass
    raise DataError(f"the score {score!r:.60} of {origin} row {row} (from 0) is not a finite number")
