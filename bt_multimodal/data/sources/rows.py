"""Reading text files row by row: lines of .txt, rows of .csv and .tsv, objects of .jsonl and .json."""

import csv
import json
import lzma
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from bt_multimodal.data.columns import LABEL_COLUMNS, DataError, shortened
from bt_multimodal.data.sources.dialects import Dialect, find_dialect, looks_like_data, table_lines
from bt_multimodal.data.sources.split_names import role
from bt_multimodal.data.sources.text_files import (
    LONGEST_CELL,
    beginning,
    is_kind,
    kind,
    lines,
    open_text,
    plain_stem,
)

__all__ = [
    "MANIFESTS",
    "ROW_FILES",
    "cell_text",
    "is_kind",
    "plain_stem",
    "read_rows",
    "row_tables",
    "split_column",
]

MANIFESTS = (".jsonl", ".csv", ".tsv")
ROW_FILES = (*MANIFESTS, ".txt")
SPLIT_COLUMNS = ("split", "subset", "partition", "usage", "set", "data set", "data_split")
LONGEST_OBJECT = 2**25  # characters of one JSON object: they may take 30 times as many bytes
MOST_COLUMNS = 4096
_LONGEST = LONGEST_CELL  # characters in a cell with a content
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MOST_EMPTY = 2**24  # cells without a value
_MOST_SPLITS = 1000
_BLOCK = 1000  # rows held as Python objects at a time


def read_rows(path: Path, line: str, inline: bool, known: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a file in order, each a dict of cells by column; only a few are in memory at a time.

    Every line of a ``.txt`` that is not blank is a row; lines end only at ``\\n`` or ``\\r\\n``, or at
    ``\\r`` in a file that has no ``\\n``. How a ``.csv`` or ``.tsv`` is written is found out
    (`dialects.find_dialect`).
    Any of them may be compressed (``.gz``, ``.zst``, ``.bz2``, ``.xz``).

    Args:
        line: the name of the single column of a ``.txt``.
        inline: cells are contents, which may be long.
        known: names of columns. A table whose first row has none of them, and that looks like data, has no
            header: its columns are ``column1``, ``column2``, ..., the one with the longest texts ``line``.

    Raises:
        DataError: what is wrong with the file, in one line.

    Warns:
        UserWarning: a table has no header.
    """
    place = _Place()
    try:
        for number, row in enumerate(_rows_of(path, line, inline, known, place)):
            if not isinstance(row, dict) or None in row:
                raise ValueError(f"row {number} (from 0) does not fit the columns")
            yield row
    except (OSError, ValueError, csv.Error, RecursionError, EOFError, zlib.error, lzma.LZMAError) as error:
        where = f" (line {place.line})" if place.line else ""
        if isinstance(error, UnicodeDecodeError):
            where += ": save it in UTF-8"
        raise DataError(f"cannot read {str(path)!r}: {error}{where}") from error


class _Place:
    """The line of a file that is being read, from 1; 0 before the first."""

    line = 0


def _rows_of(path: Path, line: str, inline: bool, known: Sequence[str], place: _Place) -> Iterator[Any]:
    ending = kind(path)
    if ending == ".json":
        yield from _json_list(path)
    elif ending in (".csv", ".tsv"):
        yield from _csv_rows(path, line, inline, known, place)
    else:
        # By default Python would also end lines at a lone \r.
        newline = _line_end(path) if ending == ".txt" else ""
        with open_text(path, newline=newline) as file:
            longest = _LONGEST if ending == ".txt" else LONGEST_OBJECT
            for place.line, text in enumerate(lines(file, longest), 1):
                if not text.strip():
                    continue
                yield {line: text.removesuffix("\n").removesuffix("\r")} if ending == ".txt" else _json(text)


def _line_end(path: Path) -> str:
    sample = beginning(path)
    return "\r" if "\r" in sample.removesuffix("\r") and "\n" not in sample else "\n"


def _json(text: str) -> Any:
    row = json.loads(text)
    if _SURROGATE.search(text):
        json.dumps(row, ensure_ascii=False).encode()  # raises for an unpaired surrogate
    return row


def _json_list(path: Path) -> Iterator[Any]:
    """The objects of a list, alone or as the only list of an object; or one object on each line."""
    with open_text(path) as file:
        text = file.read(LONGEST_OBJECT + 1)
    if len(text) > LONGEST_OBJECT:
        raise ValueError(
            f"it has more than the limit of {LONGEST_OBJECT:,} characters; write one object a line (.jsonl)"
        )
    try:
        found = _json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        yield from (_json(part) for part in text.splitlines() if part.strip())
        return
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else [found]
    yield from found if isinstance(found, list) else [found]


def _csv_rows(
    path: Path, line: str, inline: bool, known: Sequence[str], place: _Place
) -> Iterator[dict[str | None, Any]]:
    dialect = find_dialect(path)
    rows = _cells(path, dialect, inline, place)
    header = next(rows, None)
    if header is None:
        return
    first = list(islice(rows, 64))
    names = [*known, *LABEL_COLUMNS, *SPLIT_COLUMNS, line]
    if looks_like_data(header, [name.lower() for name in names]):
        first = [header, *first]
        header = _unnamed(first, line, known)
        if line in header:
            column = header.index(line) + 1
            warnings.warn(
                f"{str(path)!r} has no header: took column {column} of {len(header)} for contents; choose "
                "by --data.content_column column1 and so on, classes by --data.label_column",
                stacklevel=2,
            )
    elif first and all(len(row) == len(header) + 1 for row in first):
        if all(row[-1] == "" for row in first):
            first, rows = [row[:-1] for row in first], (row[:-1] if row[-1] == "" else row for row in rows)
        elif len(header) > 1 and all(row[0].isdigit() for row in first):  # R's and pandas' names of rows
            header = ["", *header]
    if len(header) > MOST_COLUMNS:
        raise ValueError(f"it has {len(header):,} columns, over the limit of {MOST_COLUMNS:,}")
    columns = _distinct(header)
    width = len(columns)
    for row in chain(first, rows):
        if len(row) > width:
            yield {**dict(zip(columns, row, strict=False)), None: row[width:]}
        else:
            yield dict(zip(columns, row + [None] * (width - len(row)), strict=True))


def _cells(path: Path, dialect: Dialect, inline: bool, place: _Place) -> Iterator[list[Any]]:
    reader = csv.reader(table_lines(path, dialect), **dialect.options())
    while True:
        before = csv.field_size_limit()
        if inline:
            csv.field_size_limit(_LONGEST)  # applies to the whole process, so it is restored right after
        try:
            block = [(reader.line_num, row) for row in islice(reader, 64)]
        finally:
            place.line = reader.line_num + dialect.skip
            csv.field_size_limit(before)
        if not block:
            return
        for number, row in block:
            place.line = number + dialect.skip
            if row:
                yield row


def _unnamed(rows: Sequence[Sequence[str]], line: str, known: Sequence[str]) -> list[str]:
    """Names for columns without any: that of the longest texts is ``line``, unless the user chose one."""
    width = max(map(len, rows))
    names = [f"column{i + 1}" for i in range(width)]
    if any(name in names for name in known):
        return names
    lengths = [sum(len(row[i]) for row in rows if len(row) > i) for i in range(width)]
    names[lengths.index(max(lengths))] = line
    return names


def _distinct(header: Sequence[str]) -> list[str]:
    """The names, as pandas makes them distinct: a second ``text`` is ``text.1``."""
    taken: dict[str, None] = {}
    for name in header:
        new = next(made for n in count() if (made := f"{name}.{n}" if n else name) not in taken)
        taken[new] = None
    return list(taken)


def split_column(rows: Sequence[dict[str, Any]]) -> str | None:
    """The column with the split of a row: ``split``, or one of a like name with cells that name splits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if "split" in columns:
        return "split"
    for wanted in SPLIT_COLUMNS:
        for name in columns:
            cells = [text for row in rows if (text := cell_text(row.get(name)))]
            if name.strip().lower() == wanted and cells and all(map(role, cells)):
                return name
    return None


def cell_text(cell: Any) -> str | None:
    """A cell as text, numbers written out; ``None`` for an empty cell, a list, an object or NaN."""
    if cell != cell:
        return None
    return cell if isinstance(cell, str) else None if isinstance(cell, list | dict | None) else str(cell)


def row_tables(
    files: Iterable[Path], line: str, inline: bool, split: str | None, known: Sequence[str] = ()
) -> dict[str, Any]:
    """The rows of files as one Arrow table of strings per split, all with the same columns.

    Args:
        line, inline, known: see `read_rows`; if cells are not contents, empty ones become null.
        split: the column with the split of a row; otherwise, or if that is empty, it is "train".

    Raises:
        DataError: as `read_rows`.
    """
    import pyarrow as pa

    splits: dict[str, _TableBuilder] = {}
    columns: dict[str, None] = {}
    nested: set[str] = set()
    for path in files:
        for row in read_rows(path, line, inline, known):
            nested |= {name for name, cell in row.items() if inline and isinstance(cell, list | dict)}
            convert = cell_text if inline else _manifest_text
            cells = {name: convert(cell) for name, cell in row.items()}
            columns.update(dict.fromkeys(cells))
            if len(columns) > MOST_COLUMNS:
                raise DataError(f"{str(path)!r} has more columns than the limit of {MOST_COLUMNS:,}")
            name = (split and cells.get(split)) or "train"
            if name not in splits and len(splits) >= _MOST_SPLITS:
                raise DataError(
                    f"column {shortened(split or '')!r} of {path.name!r} names over {_MOST_SPLITS} splits"
                )
            splits.setdefault(name, _TableBuilder(columns, repr(str(path)))).add(cells)
    tables = {name: builder.table() for name, builder in splits.items()}
    for column in nested & set(columns):  # its type makes `columns.check_contents` refuse it
        position = list(columns).index(column)
        lists = pa.list_(pa.string())
        tables = {
            name: table.set_column(position, pa.field(column, lists), pa.nulls(len(table), lists))
            for name, table in tables.items()
        }
    return tables


def _manifest_text(cell: Any) -> str | None:
    return None if cell in (None, "") or cell != cell else str(cell)


class _TableBuilder:
    """Collects rows in Arrow's memory, block by block.

    Args:
        columns: the columns of all splits seen so far; the caller adds to them.
        where: the source, in messages.

    Raises:
        ValueError: nearly all cells are empty, so that few bytes would become a large table.
    """

    def __init__(self, columns: Iterable[str], where: str):
        self._columns, self._where = columns, where
        self._rows: list[dict[str, str | None]] = []
        self._tables: list[Any] = []
        self._length = self._filled = 0

    def add(self, row: dict[str, str | None]) -> None:
        self._rows.append(row)
        self._length += 1
        self._filled += len(row)
        if len(self._rows) == _BLOCK:
            self._flush()

    def table(self) -> Any:
        import pyarrow as pa

        self._flush(last=True)
        return pa.concat_tables(self._tables, promote_options="default")

    def _check(self) -> None:
        cells = self._length * len(list(self._columns))
        if cells > MOST_EMPTY + 20 * self._filled:
            raise DataError(
                f"{self._where} has {cells:,} cells and {self._filled:,} values, over the "
                f"limit of {MOST_EMPTY:,} empty ones: each of its rows has other columns"
            )

    def _flush(self, last: bool = False) -> None:
        """Make a table of the rows; the last one has all columns, the others one at least."""
        import pyarrow as pa

        self._check()
        names = [*self._columns] if last else [*dict.fromkeys(chain.from_iterable(self._rows))]
        names = names or [*self._columns][:1]
        columns = {name: [row.get(name) for row in self._rows] for name in names}
        schema = pa.schema([(name, pa.large_string()) for name in columns])
        self._tables.append(pa.table(columns, schema))
        self._rows = []
