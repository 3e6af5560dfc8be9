"""Reading text files row by row: lines of .txt, rows of .csv and .tsv, objects of .jsonl."""

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
_LONGEST = 2**26  # characters in a cell with a content; 256 MB while it is read
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLOCK = 1000  # rows held as Python objects at a time


def read_rows(path: Path, line: str, inline: bool) -> Iterator[dict[str, Any]]:
    """The rows of a file in order, each a dict of cells by column; only a few are in memory at a time.

    Every line of a ``.txt`` that is not blank is a row; lines end only at ``\\n`` or ``\\r\\n``.

    Args:
        line: the name of the single column of a ``.txt``.
        inline: cells are contents, which may be long.

    Raises:
        DataError: what is wrong with the file, in one line.
    """
    suffix = path.suffix.lower()
    try:
        # By default Python would also end lines at a lone \r.
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
        json.dumps(row, ensure_ascii=False).encode()  # raises for an unpaired surrogate
    return row


def _csv_rows(file: TextIO, delimiter: str, inline: bool) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    while True:
        before = csv.field_size_limit()
        if inline:
            csv.field_size_limit(_LONGEST)  # applies to the whole process, so it is restored right after
        try:
            block = list(islice(reader, 64))
        finally:
            csv.field_size_limit(before)
        if not block:
            return
        yield from block


def cell_text(cell: Any) -> str | None:
    """A cell as text, numbers written out; ``None`` for an empty cell, a list or an object."""
    return cell if isinstance(cell, str) else None if isinstance(cell, list | dict | None) else str(cell)


def row_tables(files: Iterable[Path], line: str, inline: bool, by_cell: bool) -> dict[str, Any]:
    """The rows of files as one Arrow table of strings per split, all with the same columns.

    Args:
        line, inline: see `read_rows`; if cells are not contents, empty ones become null.
        by_cell: the split of a row is in its column ``split``; otherwise, or if that is empty, "train".

    Raises:
        DataError: as `read_rows`.
    """
    import pyarrow as pa

    splits: dict[str, _TableBuilder] = {}
    columns: dict[str, None] = {}
    nested: set[str] = set()
    for path in files:
        for row in read_rows(path, line, inline):
            nested |= {name for name, cell in row.items() if inline and isinstance(cell, list | dict)}
            convert = cell_text if inline else _manifest_text
            cells = {name: convert(cell) for name, cell in row.items()}
            columns.update(dict.fromkeys(cells))
            name = (by_cell and cells.get("split")) or "train"
            splits.setdefault(name, _TableBuilder(columns)).add(cells)
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
    return None if cell in (None, "") else str(cell)


class _TableBuilder:
    """Collects rows in Arrow's memory, block by block.

    Args:
        columns: the columns of all splits seen so far; the caller adds to them.
    """

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

        self._flush()  # the last block has all columns
        return pa.concat_tables(self._tables, promote_options="default")

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [row.get(name) for row in self._rows] for name in self._columns}
        schema = pa.schema([(name, pa.large_string()) for name in columns])
        self._tables.append(pa.table(columns, schema))
        self._rows = []
