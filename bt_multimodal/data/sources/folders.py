"""The splits of a folder: of files in folders, or of the tables and archives in it."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.data.columns import DataError, printable, shortened
from bt_multimodal.data.sources.layout import Group, Layout, arrange
from bt_multimodal.data.sources.listings import applied
from bt_multimodal.data.sources.split_names import TRAIN, exact_role, role, without_shard, words
from bt_multimodal.data.sources.summary import Found
from bt_multimodal.data.sources.text_files import is_kind, plain_stem
from bt_multimodal.data.sources.walk import counted, ending, walk

_DOCUMENTATION = frozenset(
    {"readme", "license", "licence", "requirements", "changelog", "notice", "citation"}
)
_ARCHIVES = frozenset({".zip", ".7z", ".rar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"})
_ESCAPED = "\0"  # no name of a file has it


class Split(NamedTuple):
    """A split of a source, not yet loaded."""

    origin: str  # its name in messages
    locate: Callable[[str], Any]  # takes a string from a cell of contents
    load: Callable[[], Any]  # returns a datasets.Dataset
    size: Callable[[], int | None] = lambda: None  # the number of records if that is quickly known
    grouped: bool = False  # its classes are folders of folders, such as speakers and their chapters


class Folder(NamedTuple):
    """What a folder is read as: either the splits of its files, or tables or archives of one kind."""

    splits: dict[str, Split]
    tables: list[Path]
    found: Found


class Wanted(NamedTuple):
    """What is looked for in a folder.

    Attributes:
        endings: of the files that are records, in lower case.
        kinds: endings of tables and archives, the first that is there is read.
        inline: files that are records are texts, and a ``.txt`` outside of folders of classes is a table of
        lines.
    """

    endings: tuple[str, ...]
    kinds: tuple[str, ...]
    inline: bool
    named: bool
    content: str | None
    label: str | None
    columns: tuple[str, ...]


def open_folder(root: Path, wanted: Wanted) -> Folder:
    """What a folder is read as.

    Raises:
        DataError: nothing in it can be read.
    """
    files, skipped = walk(root)
    records = _records(files, wanted)
    layout = arrange(records, wanted.named, loose=not wanted.inline)
    tables = tables_in(root, files, wanted.kinds)
    listed: list[str] = []
    used: set[str] = set()
    has_splits = len(layout.groups) > 1 or exact_role(_top(records)) == TRAIN
    classes = {name for group in layout.groups.values() for name in group.labels}
    if records and tables and not _prefer_files(wanted, tables, has_splits, len(classes), root):
        records = []
    if not records and not tables:
        raise DataError(_nothing(root, files, wanted))
    left: list[str] = []
    if records:
        taken = frozenset(records)
        others = [file for file in files if file not in taken]
        layout, listed, used = applied(root, others, layout, wanted.content, wanted.label, wanted.columns)
        what = f"{len(records):,} files ({counted(records)})"
        left += layout.left
        beside = [file for file in others if file not in used and is_kind(file, wanted.kinds)]
        archives = [file for file in beside if ending(file) in (".parquet", ".tar")]
        if archives:
            shown = ", ".join(printable(shortened(file)) for file in archives[:3])
            left.append(
                f"{shown} beside the folders of files; to read it instead, give its path as --data.source"
            )
        unread = [file for file in others if file not in used and file not in archives]
        notes = [*layout.notes, *_vanished(layout, unread)]
    else:
        others = [file for file in files if root / file not in {*tables}]
        what = f"{len(tables):,} file(s) ({counted([table.name for table in tables])})"
        inside = [file for file in others if file.lower().endswith(wanted.endings or ("\0",))]
        if inside and not wanted.inline:
            left.append(
                f"{counted(inside)} beside {tables[0].name}; to read them, give their folder as --data.source"
            )
        unread = [file for file in others if file not in {*inside} or wanted.inline]
        notes = []
    if skipped:
        shown = ", ".join(printable(shortened(name)) for name in skipped[:3])
        left.append(f"{len(skipped):,} that are no files or lead round in a circle: {shown}")
    found = Found(
        f"{root}: {what}", tuple(listed), tuple(left), tuple(notes), counted(unread) if unread else ""
    )
    if not records:
        return Folder({}, tables, found)
    if not listed:
        wanted = wanted._replace(label=None)
    splits = {name: _split(root, layout.groups[name], wanted) for name in sorted(layout.groups)}
    return Folder(splits, [], found)


def _records(files: Sequence[str], wanted: Wanted) -> list[str]:
    if not wanted.endings:
        return []
    if not wanted.inline:
        return [file for file in files if file.lower().endswith(wanted.endings)]
    texts = [file for file in files if ending(file) in wanted.endings or _has_no_ending(file)]
    above: set[str] = set()  # folders with folders of texts in them: what is beside these is about them
    for folder in {os.path.dirname(file) for file in texts}:
        while folder and (folder := os.path.dirname(folder)) not in above:
            above.add(folder)
    return [file for file in texts if os.path.dirname(file) not in above and os.sep in file]


def _has_no_ending(file: str) -> bool:
    """As the files of 20 newsgroups, whose names are numbers."""
    return file.rpartition(os.sep)[2].isdigit()


def _top(files: Sequence[str]) -> str:
    tops = {file.partition(os.sep)[0] for file in files if os.sep in file}
    return next(iter(tops)) if len(tops) == 1 else ""


def _prefer_files(wanted: Wanted, tables: Sequence[Path], has_splits: bool, classes: int, root: Path) -> bool:
    """Whether a folder's files are its records rather than the tables and archives that it has as well."""
    if wanted.inline:
        if all(is_kind(table, (".txt",)) for table in tables):
            return classes > 1 or (has_splits and not any(map(_names_split, map(str, _below(tables, root)))))
        return has_splits and classes > 1
    return has_splits or (classes > 1 and not any(role(plain_stem(table)) for table in tables))


def _below(tables: Sequence[Path], root: Path) -> list[Path]:
    return [table.relative_to(root) for table in tables]


def tables_in(root: Path, files: Sequence[str], kinds: Sequence[str]) -> list[Path]:
    """The tables or archives of one of the ``kinds`` that a folder has.

    It is the first kind of which some are called as splits or are in folders that are, or else the first that
    there is. They are in the folder itself, in its subfolder ``data``, in folders below that are called as
    splits, or in the only folder that has any.
    """
    found = [tables for kind in kinds if (tables := _of_kind(files, kind))]
    named = [tables for tables in found if any(_names_split(table) for table in tables)]
    return [root / table for table in next(iter(named or found), [])]


def _names_split(table: str) -> bool:
    return any(map(role, (plain_stem(table), *table.split(os.sep)[:-1])))


def _of_kind(files: Sequence[str], kind: str) -> list[str]:
    of_kind = [file for file in files if _is(file, kind)]
    plain = [file for file in of_kind if not {*words(plain_stem(file))} & _DOCUMENTATION] or of_kind
    by_folder: dict[str, list[str]] = {}
    for file in plain:
        by_folder.setdefault(os.path.dirname(file), []).append(file)
    splits = [
        folder
        for folder in sorted(by_folder)
        if folder and all(p == "data" or role(p) for p in folder.split(os.sep))
    ]
    in_splits = [file for folder in splits if folder != "data" for file in by_folder[folder]]
    if kind == ".txt" and any(
        os.path.dirname(folder) in splits for folder in by_folder if os.path.dirname(folder)
    ):
        in_splits = []  # folders of classes in those of splits: each file is a record
    for parent in ("", "data"):
        if parent in by_folder and (not in_splits or any(map(_names_split, by_folder[parent]))):
            return by_folder[parent]
    if in_splits:
        return in_splits
    if len(by_folder) == 1 and kind != ".txt":
        return plain
    parents = {os.path.dirname(folder) for folder in by_folder}
    if len(parents) == 1 and by_folder and all(role(os.path.basename(folder)) for folder in by_folder):
        return plain
    return []


def _is(file: str, kind: str) -> bool:
    if kind in (".parquet", ".tar"):
        return file.lower().endswith(kind)
    if kind == ".json":
        return is_kind(file, (kind,)) and role(plain_stem(file)) is not None
    return is_kind(file, (kind,))


def split_files(files: Sequence[Path], root: Path, named: bool) -> dict[str, list[Path]]:
    """The files of a table by split, which is in their names or in those of their folders below ``root``.

    ``imagenet-train-000012`` is in the split ``train``; ``fold-1`` is a split of its own. If no name
    holds a known split, all files are train, unless the user names splits (``named``).
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        stem = without_shard(plain_stem(file))
        exact = [word for word in words(stem) if exact_role(word)][-1:] if role(stem) else []
        last = words(stem)[-1:]
        folders = [part for part in file.relative_to(root).parts[:-1] if role(part)][-1:]
        if role(stem) is None:
            name = folders[0] if folders else stem
        else:
            name = exact[0] if exact == last else stem
        splits.setdefault(name, []).append(file)
    return splits if named or any(map(role, splits)) else {TRAIN: list(files)}


def _nothing(root: Path, files: Sequence[str], wanted: Wanted) -> str:
    there = f"; there are {counted(files)}" if files else "; it is empty"
    if any(ending(file) in _ARCHIVES for file in files):
        there += ": unpack the archives"
    if not wanted.endings or wanted.inline:
        kinds = ", ".join(kind for kind in wanted.kinds if kind != ".json")
        return f"{str(root)!r} has no {kinds} file, itself or in 'data'{there}"
    return f"no file with extension {', '.join(wanted.endings)} under '{root}'{there}"


def _vanished(layout: Layout, unread: Sequence[str]) -> list[str]:
    """A line for each folder beside those of classes of which nothing is read."""
    notes = []
    for group in layout.groups.values():
        classes = {name for name in group.labels if name}
        if not classes:
            continue
        missing: dict[str, list[str]] = {}
        for file in unread:
            top, separator, _ = file.removeprefix(group.base).partition(os.sep)
            if file.startswith(group.base) and separator and printable(top) not in classes:
                missing.setdefault(top, []).append(file)
        if len(layout.groups) > 1:
            missing = {top: files for top, files in missing.items() if top not in layout.groups}
        for top, files in list(missing.items())[:5]:
            name = printable(shortened(f"{group.base}{top}"))
            notes.append(f"the folder {name!r} is no class: nothing in it is read ({counted(files)})")
    return notes


def _split(root: Path, group: Group, wanted: Wanted) -> Split:
    folder = root / group.base
    grouped = bool(group.files) and all(file.count(os.sep) > 1 for file in group.files)
    load, size = partial(_load, group, wanted), partial(len, group.files)
    return Split(str(folder), partial(below, folder), load, size, grouped)


def _load(group: Group, wanted: Wanted) -> Any:
    from datasets import Dataset

    content = wanted.content if wanted.content and wanted.label else wanted.columns[0]
    label = wanted.label or "label"
    return Dataset.from_dict({content: [escaped(file) for file in group.files], label: group.labels})


def escaped(file: str) -> str:
    """A path as a table can hold it, whose texts are UTF-8; `below` takes it."""
    return file if printable(file) == file else _ESCAPED + os.fsencode(file).hex()


def unescaped(cell: str) -> str:
    """The path of a cell made by `escaped`."""
    return os.fsdecode(bytes.fromhex(cell[1:])) if cell.startswith(_ESCAPED) else cell


def below(root: Path, cell: str) -> Path:
    """A path from a cell made by `escaped`, relative to ``root``."""
    return root / unescaped(cell)
