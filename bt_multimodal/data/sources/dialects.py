"""Finding out how a table of text is written: its separator, what quotes mean, whether it has a header."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data.sources.text_files import LONGEST_CELL, SAMPLE, beginning, kind, lines, open_text

_SEPARATORS = (",", "\t", ";", "|")
_LOOK = 50  # rows
_ANALYSED = 2**26  # characters in which quotes are looked for
_MOST_ROWS = 10**6
_LONG_NAME = 60  # characters that no column's name has


class Dialect(NamedTuple):
    """How a table is written.

    Attributes:
        separator: of cells.
        literal: a quote is a character like others, so each line is a row.
        escaped: a quote in a quoted cell is ``\\"``; otherwise ``""``.
        skip: lines before the header (Excel's ``sep=;``).
        newline: as in `open`.
    """

    separator: str
    literal: bool = False
    escaped: bool = False
    skip: int = 0
    newline: str = ""

    def options(self) -> dict[str, Any]:
        """The arguments for `csv.reader`."""
        if self.literal:
            return {"delimiter": self.separator, "quoting": csv.QUOTE_NONE, "strict": True}
        if self.escaped:
            return {"delimiter": self.separator, "escapechar": "\\", "doublequote": False, "strict": True}
        return {"delimiter": self.separator, "strict": True}


def find_dialect(path: Path) -> Dialect:
    """The dialect of a ``.csv`` or ``.tsv`` file.

    Tabs, semicolons or bars separate cells where that makes all rows equally long and the ending's own
    separator does not. In a file with tabs, quotes are characters like others unless all of them are as a
    program writes them that quotes cells: in pairs around cells that need it, doubled within.
    """
    sample, skip = beginning(path), 0
    declared = re.match(r"sep=(.)\r?\n?", sample)
    if declared:
        skip, separator, sample = 1, declared[1], sample[declared.end() :]
    else:
        separator = _separator(sample, "\t" if kind(path) == ".tsv" else ",")
    if separator in ("\t", "|"):
        plain = Dialect(separator, literal=True, skip=skip, newline="\n" if "\n" in sample else "")
        if _quotes_are_literal(path, plain):
            return plain
    elif re.search(r'(?<!\\)\\"[^,;|\t\r\n]', sample):
        escaped = Dialect(separator, escaped=True, skip=skip)
        # A backslash before anything else is a character, and so is one in a file that doubles quotes.
        other = re.search(r'\\[^"\\]|[^,;|\t\r\n]""|""[^,;|\t\r\n]', sample)
        usual, read = (_widths(sample, dialect.options()) for dialect in (Dialect(separator), escaped))
        if (not other or not _even(usual)) and _even(read) and len(read) >= len(usual):
            return escaped
    return Dialect(separator, skip=skip)


def _widths(sample: str, options: dict[str, Any]) -> list[int]:
    """The number of cells of the first rows; a row that the sample cuts does not count."""
    rows: list[list[str]] = []
    try:
        for row in islice(csv.reader(io.StringIO(sample, newline=""), **options), _LOOK + 1):
            rows.append(row)
    except csv.Error:
        return []
    if len(rows) <= _LOOK and len(sample) >= SAMPLE // 4 and len(rows) > 1:
        rows = rows[:-1]
    return [len(row) for row in rows[:_LOOK] if row]


def _separator(sample: str, usual: str) -> str:
    def even(separator: str) -> bool:
        options = {"delimiter": separator}
        widths = _widths(sample, options)
        if separator in ("\t", "|") and len({*widths}) != 1:
            widths = _widths(sample, {**options, "quoting": csv.QUOTE_NONE})
        return bool(widths) and min(widths) == max(widths) > 1

    header = sample.splitlines()[0] if sample else ""
    if even(usual):
        return usual
    others = [separator for separator in _SEPARATORS if separator in header and even(separator)]
    if others:
        return max(others, key=header.count)
    if (
        usual != "\t"
        and header.count("\t") > 1
        and all(line.count("\t") >= header.count("\t") for line in sample.splitlines()[:_LOOK])
    ):
        return "\t"
    present = [separator for separator in _SEPARATORS if separator in header]
    return usual if usual in present or not present else max(present, key=header.count)


def _even(widths: Sequence[int]) -> bool:
    """Whether there are rows, all of them equally long."""
    return len({*widths}) == 1


def _quotes_are_literal(path: Path, plain: Dialect) -> bool:
    """Whether the quotes of a file with tabs or bars are no more than characters."""
    quoted = whole = 0
    width = None
    even, within = True, False
    for stripped in _plain_lines(path, plain):
        cells = stripped.split(plain.separator)
        width = width or len(cells)
        even = even and len(cells) == width
        if '"' in stripped:
            quoted += sum(cell.startswith('"') for cell in cells)
            whole += sum(map(_is_written_quote, cells))
            # A program that quotes cells would have quoted this one.
            within = within or any('"' in cell and not cell.startswith('"') for cell in cells)
    if not quoted and not within:
        return False
    if not even or width == 1:
        return not _reads_as_quoted(path, plain, within)
    return within or quoted != whole or not _needed(path, plain)


def _plain_lines(path: Path, plain: Dialect) -> Iterator[str]:
    """The lines that are not blank, without their ends, up to a number of characters."""
    seen = 0
    with open_text(path, plain.newline, errors="replace") as file:
        for number, line in enumerate(lines(file)):
            if (seen := seen + len(line)) > _ANALYSED:
                return
            if number >= plain.skip and (stripped := line.rstrip("\r\n")):
                yield stripped


def _reads_as_quoted(path: Path, plain: Dialect, doubtful: bool) -> bool:
    """Whether quotes around cells make a table of it; if ``doubtful``, one whose rows are equally long."""
    widths = set()
    try:
        rows = csv.reader(
            table_lines(path, plain._replace(newline=""), "replace"), delimiter=plain.separator, strict=True
        )
        for number, row in enumerate(rows):
            if number > _MOST_ROWS:
                break
            widths.add(len(row))
    except csv.Error as error:
        return "field larger" in str(error)
    return not doubtful or len(widths - {0}) == 1


def _is_written_quote(cell: str) -> bool:
    return len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")


def _needed(path: Path, plain: Dialect) -> bool:
    """Whether each cell in quotes has doubled ones or is empty, or all of its column are in quotes."""
    bare: set[int] = set()
    unneeded: set[int] = set()
    for stripped in islice(_plain_lines(path, plain), 1, None):
        for column, cell in enumerate(stripped.split(plain.separator)):
            if not cell.startswith('"'):
                if cell:
                    bare.add(column)
            elif cell != '""' and '""' not in cell[1:-1]:
                unneeded.add(column)
    return not unneeded & bare


def looks_like_data(row: Sequence[str], known: Sequence[str]) -> bool:
    """Whether the first row of a table is no header: numbers, long texts or the same cell twice.

    Args:
        row: the cells.
        known: names of columns; a row with one of them is a header.
    """
    cells = [cell.strip() for cell in row]
    if len(cells) < 2 or any(cell.lower() in known for cell in cells):
        return False
    numbers = [cell for cell in cells if re.fullmatch(r"-?\d+(\.\d+)?", cell)]
    if numbers and numbers != [str(i) for i in range(len(numbers))]:  # pandas numbers columns from 0
        return True
    filled = [cell for cell in cells if cell]
    return len({*filled}) < len(filled) or any(len(cell) > _LONG_NAME for cell in cells)


def table_lines(path: Path, dialect: Dialect, errors: str = "strict") -> Iterator[str]:
    """The lines of a table from its header on."""
    with open_text(path, dialect.newline, errors) as file:
        yield from islice(lines(file, LONGEST_CELL), dialect.skip, None)
