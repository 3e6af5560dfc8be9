"""Which columns of a table hold its contents and its labels, and what their cells say."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "fine_label", "cls")
LONGEST_LABEL = 1000  # characters
_FILES = re.compile(r"(large_)?(binary|string)$|struct<(bytes|path)\b|list<\w+: list<\w+: uint8>>$")
_INLINE = re.compile(r"(large_)?(binary|string)$")


class DataError(ValueError):
    """Data that cannot be opened as asked; the message is one line for the user."""

    def __init__(self, message: str):
        if message.startswith("Caught "):  # from a loader's process it comes as a traceback that ends in it
            message = message.strip().splitlines()[-1].partition(": ")[2]
        super().__init__(shortened(" ".join(message.split()), 2000))


def shortened(text: str, most: int = 60) -> str:
    """The beginning and the end of a text of more than ``most`` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"


def there_are(what: str, wanted: Sequence[str], there: Sequence[str]) -> str:
    """For a message: which names there are, and which of them may have been meant."""
    there = [shortened(name) for name in there]
    near = [match for name in wanted for match in difflib.get_close_matches(shortened(name), there, n=1)]
    shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return f"the {what} there are: {shown or 'none'}" + (f"; did you mean {near[0]!r}?" if near else "")


def find_column(
    kind: str, wanted: str | None, known: Sequence[str], columns: Sequence[str], where: str
) -> str:
    """The column ``wanted`` by the user, or else the first of the ``known`` that is there.

    Raises:
        DataError: there is none; it lists those there are.
    """
    names = known if wanted is None else [wanted]
    for name in names:
        if name in columns:
            return name
    raise _missing(kind, names, columns, where)


def find_contents(
    wanted: str | None, known: Sequence[str], columns: Sequence[str], where: str, inline: bool
) -> list[list[str]]:
    """`find_column` of contents, as ``[[column]]``; of ``inline`` ones the names may be compound.

    ``"a+b"`` is ``[["a", "b"]]``, whose cells make one record together, and ``"a,b"`` is
    ``[["a"], ["b"]]``, whose cells are records of their own. What a column is called is that column.

    Raises:
        DataError: there is none, or a part is missing; it lists those there are.
    """
    if not inline:
        return [[find_column("content", wanted, known, columns, where)]]
    names = known if wanted is None else [wanted]
    found = [_parts(name, columns) for name in names]
    for groups in found:
        if all(name in columns for group in groups for name in group):
            return groups
    if wanted is not None:
        names = [name for group in found[0] for name in group if name not in columns][:1]
    raise _missing("content", names, columns, where)


def _parts(name: str, columns: Sequence[str]) -> list[list[str]]:
    if name in columns:
        return [[name]]
    stacked = [part.strip() for part in name.split(",")]
    return [[part] if part in columns else [one.strip() for one in part.split("+")] for part in stacked]


def _missing(kind: str, names: Sequence[str], columns: Sequence[str], where: str) -> DataError:
    asked = " or ".join(repr(shortened(name)) for name in names)
    return DataError(f"{where} has no {kind} column {asked}; {there_are('columns', names, columns)}")


def check_contents(types: Mapping[str, Any], where: str, inline: bool) -> None:
    """Refuse columns, by name the Arrow types, that hold no contents.

    Raises:
        DataError: what the first of them holds.
    """
    for name, kind in types.items():
        if not (_INLINE if inline else _FILES).match(str(kind)):
            wanted = "texts" if inline else "file contents or paths"
            raise DataError(
                f"column {shortened(name)!r} of {where} holds {shortened(str(kind))}, not {wanted}"
            )


def joined(cells: Sequence[Any]) -> Any:
    """A cell as it is; of several the texts with a space between, ``None`` where all of them are."""
    if len(cells) == 1:
        return cells[0]
    there = [cell.encode() if isinstance(cell, str) else cell for cell in cells if cell is not None]
    return b" ".join(filter(None, there)) if there else None


def class_name(value: Any, declared: list[str] | None, column: str, where: str) -> str | None:
    """The class that a cell of a label column names, if any; an index where the classes are ``declared``.

    Raises:
        DataError: an index beyond the classes, or a name too long to be one.
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
        raise DataError(f"{where} has the label {value} but the names of {len(declared)} classes")
    if len(name) > LONGEST_LABEL:
        raise label_too_long(where, len(name))
    return name


def label_too_long(where: str, length: int) -> DataError:
    """The error for a label of ``length`` characters."""
    most = f"at most {LONGEST_LABEL:,} are taken"
    return DataError(f"{where} has a label of {length:,} characters; {most}, label_column names another")
