"""Rows of text files, one after the other: lines of .txt, rows of .csv and .tsv, objects of .jsonl."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from bt_multimodal.data.columns import DataError

MANIFESTS = (".jsonl", ".csv", ".tsv")
ROW_FILES = (*MANIFESTS, ".txt")
_LONGEST = 2**26  # characters of a cell that is a content, 256 MB while it is read
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLOCK = 1000  # rows that are held as Python objects


def read_rows(path: Path, line: str, inline: bool) -> Iterator[dict[str, Any]]:
    """The rows of a file in order, each its cells by column; nothing but a few of them is held.

    Of a ``.txt`` every line is a row but the blank ones; lines end at ``\\n`` or ``\\r\\n`` and nowhere else.

    Args:
        line: what the column of a ``.txt`` is called.
        inline: cells are contents, which may be long.

    Raises:
        DataError: what is wrong with the file, in one line.
    """
    suffix = path.suffix.lower()
    try:
        # Python would end the lines of a text in a dozen places.
        with open(path, encoding="utf-8-sig", newline="\n" if suffix == ".txt" else "") as file:
            rows: Iterator[Any]
            if suffix == ".txt":
                rows = ({line: text.removesuffix("\n").removesuffix("\r")} for text in file if text.strip())
            elif suffix == ".jsonl":
                rows = (_json(text) for text in file if text.strip())
            else:
                rows = _csv_rows(file, "\t" if suffix == ".tsv" else ",", inline)
            for number, row in enumerate(rows):
                if not isinstance(row, dict) or None in row:  # DictReader puts surplus cells under None
                    raise ValueError(f"row {number} (from 0) does not fit the columns")
                yield row
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error


def _json(text: str) -> Any:
    row = json.loads(text)
    if _SURROGATE.search(text):
        json.dumps(row, ensure_ascii=False).encode()  # raises for half a pair, which is no character
    return row


def _csv_rows(file: TextIO, delimiter: str, inline: bool) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    while True:
        before = csv.field_size_limit()
        if inline:
            csv.field_size_limit(_LONGEST)  # for the whole process, so it is put back before others run
        try:
            block = list(islice(reader, 64))
        finally:
            csv.field_size_limit(before)
        if not block:
            return
        yield from block


def cell_text(cell: Any) -> str | None:
    """A cell that is a content, with numbers written out; ``None`` for none and for lists and objects."""
    return cell if isinstance(cell, str) else None if isinstance(cell, list | dict | None) else str(cell)


def row_tables(files: Iterable[Path], line: str, inline: bool, by_cell: bool) -> dict[str, Any]:
    """The rows of files as Arrow tables of strings with the same columns, by split.

    Args:
        line, inline: see `read_rows`; unless cells are contents, empty ones are none.
        by_cell: the column ``split`` says which it is; else, and where it is empty, it is "train".

    Raises:
        DataError: as `read_rows`.
    """
    import pyarrow as pa

    splits: dict[str, _Growing] = {}
    columns: dict[str, None] = {}
    nested: set[str] = set()
    for path in files:
        for row in read_rows(path, line, inline):
            nested |= {name for name, cell in row.items() if inline and isinstance(cell, list | dict)}
            convert = cell_text if inline else _manifest_text
            cells = {name: convert(cell) for name, cell in row.items()}
            columns.update(dict.fromkeys(cells))
            name = (by_cell and cells.get("split")) or "train"
            splits.setdefault(name, _Growing(columns)).add(cells)
    tables = {name: rows.table() for name, rows in splits.items()}
    for column in nested & set(columns):  # so that it is refused as a content, by its type
        at = list(columns).index(column)
        lists = pa.list_(pa.string())
        tables = {
            name: table.set_column(at, pa.field(column, lists), pa.nulls(len(table), lists))
            for name, table in tables.items()
        }
    return tables


def _manifest_text(cell: Any) -> str | None:
    return None if cell in (None, "") else str(cell)


class _Growing:
    """Rows that are in Arrow's memory, but for the last; ``columns`` are those so far, of any of them."""

    def __init__(self, columns: Iterable[str]):
        self._columns = columns
        self._rows: list[dict[str, str | None]] = []
        self._tables: list[Any] = []

    def add(self, row: dict[str, str | None]) -> None:
        self._rows.append(row)
        if len(self._rows) == _BLOCK:
            self._flush()

    def table(self) -> Any:
        import pyarrow as pa

        self._flush()  # the last has all the columns
        return pa.concat_tables(self._tables, promote_options="default")

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [row.get(name) for row in self._rows] for name in self._columns}
        schema = pa.schema([(name, pa.large_string()) for name in columns])
        self._tables.append(pa.table(columns, schema))
        self._rows = []
