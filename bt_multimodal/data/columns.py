"""Columns of a table: finding those that hold contents and labels, and reading their cells."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

LABEL_COLUMNS = (
    "label", "labels", "class", "target", "category", "fine_label", "cls", "class_name", "classname",
    "label_name", "gold_label", "label_text", "coarse_label", "sentiment",
)  # fmt: skip
LONGEST_LABEL = 1000  # characters
_FILES = re.compile(r"(large_)?(binary|string)$|struct<(bytes|path)\b|list<\w+: list<\w+: uint8>>$")
_INLINE = re.compile(r"(large_)?(binary|string)$")


class DataError(ValueError):
    """Data that cannot be opened as requested; the message is one line for the user."""

    def __init__(self, message: str):
        if message.startswith(
            "Caught "
        ):  # a loader's worker sends a whole traceback that ends in the message
            message = message.strip().splitlines()[-1].partition(": ")[2]
        super().__init__(shortened(" ".join(printable(message).split()), 2000))


def printable(name: str) -> str:
    """A name with ``\\xe9`` for a byte that is not UTF-8, which Python keeps in names of files as a
    surrogate.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape" if _escaped(name) else "backslashreplace").decode(
            "utf-8", "backslashreplace"
        )
    return name


def _escaped(name: str) -> bool:
    """Whether all surrogates are bytes of file names."""
    return not any("\ud800" <= letter < "\udc80" or "\udcff" < letter <= "\udfff" for letter in name)


def shortened(text: str, most: int = 60) -> str:
    """``text``; if it has more than ``most`` characters, only its beginning and its end."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"


def there_are(what: str, wanted: Sequence[str], available: Sequence[str]) -> str:
    """For a message: the available names, and the one that was probably meant."""
    names = [shortened(name) for name in available]
    near = [match for name in wanted for match in difflib.get_close_matches(shortened(name), names, n=1)]
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"available {what}: {shown or 'none'}" + (f"; did you mean {near[0]!r}?" if near else "")


def find_column(
    kind: str, wanted: str | None, known: Sequence[str], columns: Sequence[str], where: str
) -> str:
    """The column ``wanted`` by the user, or by default the first of the ``known`` names that exists.

    Raises:
        DataError: no such column; the message lists the available ones.
    """
    names = known if wanted is None else [wanted]
    found = known_column(names, columns) if wanted is None else wanted if wanted in columns else None
    if found is None:
        raise _missing(kind, names, columns, where)
    return found


def known_column(known: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first of the ``known`` names that exists, as it is or else in other letters (``Label``)."""
    exact = next((name for name in known if name in columns), None)
    if exact is not None:
        return exact
    lower = {name.strip().lower(): name for name in reversed(columns)}
    return next((lower[name] for name in known if name in lower), None)


def find_contents(
    wanted: str | None, known: Sequence[str], columns: Sequence[str], where: str, inline: bool
) -> list[list[str]]:
    """The columns of contents, in groups: ``[[column]]``, as `find_column` finds it.

    Names of ``inline`` contents may be compound. ``"a+b"`` is ``[["a", "b"]]``: the two cells of a row
    make one record. ``"a,b"`` is ``[["a"], ["b"]]``: each cell is a record. A column with exactly this
    name takes precedence.

    Raises:
        DataError: a column does not exist; the message lists the available ones.
    """
    if not inline:
        return [[find_column("content", wanted, known, columns, where)]]
    names = known if wanted is None else [wanted]
    candidates = [_parts(name, columns) for name in names]
    for groups in candidates:
        if all(name in columns for group in groups for name in group):
            return groups
    if wanted is None:
        lower = {name.strip().lower(): name for name in reversed(columns)}
        for groups in candidates:
            if all(name in lower for group in groups for name in group):
                return [[lower[name] for name in group] for group in groups]
    if wanted is not None:
        names = [name for group in candidates[0] for name in group if name not in columns][:1]
    raise _missing("content", names, columns, where)


def _parts(name: str, columns: Sequence[str]) -> list[list[str]]:
    if name in columns:
        return [[name]]
    stacked = [part.strip() for part in name.split(",")]
    return [[part] if part in columns else [name.strip() for name in part.split("+")] for part in stacked]


def _missing(kind: str, names: Sequence[str], columns: Sequence[str], where: str) -> DataError:
    quoted = " or ".join(repr(shortened(name)) for name in names)
    return DataError(f"{where} has no {kind} column {quoted}; {there_are('columns', names, columns)}")


def check_contents(types: Mapping[str, Any], where: str, inline: bool) -> None:
    """Check that columns can hold contents.

    Args:
        types: Arrow types by column name.

    Raises:
        DataError: a column has another type.
    """
    for name, kind in types.items():
        if not (_INLINE if inline else _FILES).match(str(kind)):
            wanted = "texts" if inline else "file contents or paths"
            raise DataError(
                f"column {shortened(name)!r} of {where} holds {shortened(str(kind))}, not {wanted}"
            )


def joined(cells: Sequence[Any]) -> Any:
    """The only cell as it is, or the texts of several joined by a space; ``None`` if all are ``None``."""
    if len(cells) == 1:
        return cells[0]
    texts = [cell.encode() if isinstance(cell, str) else cell for cell in cells if cell is not None]
    return b" ".join(filter(None, texts)) if texts else None


def class_name(value: Any, declared: list[str] | None, column: str, where: str) -> str | None:
    """The class named by a cell of a label column, or ``None`` for an empty cell.

    Args:
        value: the cell: a name, or an index into ``declared`` if that is given.

    Raises:
        DataError: an index beyond the classes, or a name of more than `LONGEST_LABEL` characters.
    """
    if value is None or value == "" or value != value:  # NaN
        return None
    where = f"column {shortened(column)!r} of {where}"
    if declared is None:
        name = str(value)
    elif value < 0:
        return None
    elif value < len(declared):
        name = declared[value]
    else:
        raise DataError(f"{where} has the label {value} but names only {len(declared)} classes")
    if len(name) > LONGEST_LABEL:
        raise label_too_long(where, len(name))
    return name


def label_too_long(where: str, length: int) -> DataError:
    """The error for a label of ``length`` characters."""
    most = f"at most {LONGEST_LABEL:,} are allowed"
    return DataError(f"{where} has a label of {length:,} characters; {most}: choose another label_column")


def sorted_classes(names: set[str]) -> list[str]:
    """Class names in order: as numbers if all of them are numbers, equal numbers by name."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if any(number != number for number in numbers.values()):  # "nan" has no place among numbers
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))
