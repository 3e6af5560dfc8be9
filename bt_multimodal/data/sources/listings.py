"""Tables and lists beside the files that they name: ``metadata.csv``, ``testing_list.txt`` and others."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bt_multimodal.data.columns import LABEL_COLUMNS, DataError, known_column, printable, shortened
from bt_multimodal.data.sources.layout import Group, Layout
from bt_multimodal.data.sources.rows import MANIFESTS, cell_text, is_kind, plain_stem, read_rows, split_column
from bt_multimodal.data.sources.split_names import TEST, TRAIN, VALIDATION, partner, role

_ALWAYS = frozenset({"metadata", "manifest"})
_FOLDERS = frozenset({"meta", "metadata", "annotations", "labels", "lists", "splits"})
_CAUTION = (None, TRAIN, VALIDATION, TEST)  # the last word on a file's split
_LARGEST = 2**28  # bytes of a table that is looked at without being asked for
_LOOK = 100  # rows to tell whether a table names files
_MOST = 0.9  # share of them that have to
MOST_LISTED = 50_000_000  # rows


class Listed(NamedTuple):
    """What a table says of files.

    Attributes:
        name: the table's, relative to the root.
        whole: it names all files that are records; otherwise those that it does not name stay.
        splits: the split of each file, ``None`` if the table does not say.
        labels: the class of each file; ``None`` if the table has none.
        unknown: rows that name no file.
        columns: the other columns.
    """

    name: str
    whole: bool
    splits: dict[str, str | None]
    labels: dict[str, str | None] | None
    unknown: int
    columns: Sequence[str] = ()


class _Names:
    """Finds files by what tables call them: a path, with or without its ending, or a name that is unique."""

    def __init__(self, files: Sequence[str]):
        self._files = frozenset(files)
        self._stems: dict[str, str | None] = {}
        for file in files:
            base = file.rpartition(os.sep)[2]
            for name in {os.path.splitext(file)[0], "\0" + base, "\0" + os.path.splitext(base)[0]}:
                self._stems[name] = None if name in self._stems else file  # two of that name: neither

    def find(self, cell: str, folders: Sequence[str]) -> str | None:
        cell = os.path.normpath(cell.strip()) if cell.strip() else ""
        for folder in folders if cell else ():
            path = folder + cell
            if path in self._files:
                return path
            if found := self._stems.get(path):
                return found
        base = cell.rpartition(os.sep)[2]
        found = self._stems.get("\0" + base) if base else None
        return self.find(cell.replace("\\", "/"), folders) if found is None and "\\" in cell else found


def applied(
    root: Path,
    others: Sequence[str],
    layout: Layout,
    content: str | None,
    label: str | None,
    columns: Sequence[str],
) -> tuple[Layout, list[str], set[str]]:
    """A layout with what the tables beside its files say, a line on each of these, and their names.

    Args:
        root: the folder.
        others: the paths of all other files, relative to it.
        layout: what its folders say.
        content, label: columns by the user.
        columns: conventional names of the column of contents.

    Raises:
        DataError: a table that is to be read (``metadata``, ``manifest``) cannot be.
    """
    tables = _candidates(root, others, layout)
    if not tables:
        return layout, [], set()
    files = [group.base + file for group in layout.groups.values() for file in group.files]
    names = _Names(files)
    has_splits = len(layout.groups) > 1
    has_labels = any(label is not None for group in layout.groups.values() for label in group.labels)
    listed: list[Listed] = []
    for table in tables:
        stem = plain_stem(table).lower()
        kind = role(stem)
        always = stem in _ALWAYS
        if not always and (_has_labels(layout, kind) if has_splits and kind else not kind and has_labels):
            continue
        try:
            found = _read(root, table, names, layout, content, label, columns)
        except DataError as error:
            if always:
                raise
            layout.notes.append(str(error))
            continue
        if found and (always or kind or found.labels is not None or any(found.splits.values())):
            listed.append(found)
        elif found and not kind:
            shown = ", ".join(map(repr, found.columns[:8]))
            layout.notes.append(
                f"{printable(table)} names the files and has no column of a known name for classes; "
                f"choose one by --data.label_column: {shown}"
            )
        elif always and found is None:
            message = f"{str(root / table)!r} names no file that is in its folder in any of its columns"
            if not (has_splits or has_labels):
                raise DataError(message)
            layout.notes.append(message)
    named = [found for found in listed if plain_stem(found.name).lower() in _ALWAYS]
    if not named:
        known = [found for found in listed if role(plain_stem(found.name))]
        if has_splits:  # they can only say labels, and splits where the folders say none
            known = [found for found in known if found.labels is not None]
        plain = [found for found in listed if found not in known]
        named = known or sorted(plain, key=lambda found: -len(found.splits))[:1]
        named = _without_rivals(named, layout)
    if not named:
        return layout, [], set()
    return _merged(layout, named), [_described(found) for found in named], {found.name for found in named}


def _without_rivals(tables: Sequence[Listed], layout: Layout) -> list[Listed]:
    """The tables of one kind, if several name the same files (``family_test.txt``, ``variant_test.txt``)."""
    kinds: dict[str, list[Listed]] = {}
    for found in tables:
        digits = "".join(letter for letter in plain_stem(found.name) if letter.isdigit())
        kinds.setdefault(partner(plain_stem(found.name)) + digits, []).append(found)
    if len(kinds) < 2:
        return list(tables)
    best = max(
        kinds.values(), key=lambda of_kind: (sum(found.labels is not None for found in of_kind), len(of_kind))
    )
    kept, files = list(best), {file for found in best for file in found.splits}
    for found in tables:
        if found not in best and files & set(found.splits):
            layout.left.append(
                f"{printable(found.name)}, which names files that {printable(kept[0].name)} names"
            )
        elif found not in best:
            kept.append(found)
    return kept


def _has_labels(layout: Layout, kind: str) -> bool:
    groups = [group for name, group in layout.groups.items() if role(name) == kind]
    return any(label is not None for group in groups for label in group.labels)


def _candidates(root: Path, others: Sequence[str], layout: Layout) -> list[str]:
    parts = layout.base.split(os.sep)
    above = {os.sep.join([*parts[:i], ""]) if i else "" for i in range(len(parts))}
    above |= {group.base for group in layout.groups.values()}
    above |= {top for group in layout.groups.values() for top in _parents(group.base)}
    found = []
    for file in others:
        folder, separator, _ = file.rpartition(os.sep)
        folder += separator
        parent = folder.rstrip(os.sep).rpartition(os.sep)
        beside = parent[2].lower() in _FOLDERS and parent[0] + parent[1] in above
        if not (folder in above or beside) or not is_kind(file, (*MANIFESTS, ".txt")):
            continue
        if (root / file).stat().st_size <= _LARGEST:
            found.append(file)
    return found


def _parents(base: str) -> Iterable[str]:
    while base := base.rstrip(os.sep).rpartition(os.sep)[0]:
        yield base + os.sep


def _read(
    root: Path,
    table: str,
    names: _Names,
    layout: Layout,
    content: str | None,
    label: str | None,
    columns: Sequence[str],
) -> Listed | None:
    """What a table says, or ``None`` if it names no files."""
    folder = table.rpartition(os.sep)[0]
    folder += os.sep if folder else ""
    kind = role(plain_stem(table))
    folders = [
        folder,
        layout.base,
        *(group.base for name, group in layout.groups.items() if role(name) == (kind or TRAIN)),
    ]
    folders = list(dict.fromkeys(folders))
    if is_kind(table, (".txt",)):
        return _read_lines(root, table, names, folders, layout)
    first = list(islice(read_rows(root / table, "line", False, ("column1",)), _LOOK))
    available = list(dict.fromkeys(name for row in first for name in row))
    wanted = [content] if content else sorted(available, key=lambda name: name.lower() not in columns)
    column, best = None, 0.0
    for name in wanted:
        cells = [text for row in first if (text := cell_text(row.get(name)))]
        files = [names.find(cell, folders) for cell in cells]
        share = 1 - files.count(None) / max(len(cells), 1) if cells else 0.0
        some = plain_stem(table).lower() in _ALWAYS or (kind and _names_files(cells, files))
        if share > best and (share >= _MOST or some):
            column, best = name, share
    if column is None:
        return None
    label_column = (
        label if label in available else known_column(LABEL_COLUMNS, [n for n in available if n != column])
    )
    split = split_column(first)
    splits: dict[str, str | None] = {}
    labels: dict[str, str | None] = {}
    unknown = 0
    for row in islice(read_rows(root / table, "line", False, ("column1",)), MOST_LISTED):
        file = names.find(cell_text(row.get(column)) or "", folders)
        if file is None:
            unknown += 1
            continue
        splits[file] = (split and cell_text(row.get(split))) or None
        if label_column:
            labels[file] = cell_text(row.get(label_column)) or None
    whole = plain_stem(table).lower() in _ALWAYS or kind is None or kind == TRAIN
    if split is None:
        splits = dict.fromkeys(splits, kind and _own(layout, table, kind))
    rest = [name for name in available if name not in (column, split)]
    return Listed(table, whole and kind is None, splits, labels if label_column else None, unknown, rest)


def _own(layout: Layout, table: str, kind: str) -> str:
    """The split of a table by its name: the folder's split of that role if there is one."""
    return next(
        (name for name in layout.groups if len(layout.groups) > 1 and role(name) == kind), plain_stem(table)
    )


def _read_lines(
    root: Path, table: str, names: _Names, folders: Sequence[str], layout: Layout
) -> Listed | None:
    """What a list says: a path on each line, perhaps a class after it."""
    kind = role(plain_stem(table))
    if kind is None:
        return None
    lines = [row["line"].strip() for row in read_rows(root / table, "line", inline=True)]
    lines = [line for line in lines if line and line[0] != "#"]
    whole_line = [names.find(line, folders) for line in lines[:_LOOK]]
    if not lines:
        return None
    first_word = [names.find(line.split()[0], folders) for line in lines[:_LOOK]]
    cut = first_word.count(None) < whole_line.count(None)
    paths = [line.split()[0] for line in lines] if cut else lines
    files = [names.find(path, folders) for path in paths]
    if not _names_files(paths, files):
        return None
    own = _own(layout, table, kind)
    if kind != TRAIN and len({*files} - {None}) >= _MOST * sum(
        len(group.files) for group in layout.groups.values()
    ):
        return None  # a list of everything, such as CelebA's list_eval_partition
    splits: dict[str, str | None] = {file: own for file in files if file is not None}
    labels: dict[str, str | None] | None = None
    if cut and all(len(line.split()) > 1 for line in lines):
        even = len({len(line.split()) for line in lines}) == 1  # otherwise the class may have several words
        after = [
            line.split("\t" if "\t" in line else None, -1 if even or "\t" in line else 1)[1] for line in lines
        ]
        labels = {file: text.strip() for file, text in zip(files, after, strict=True) if file is not None}
        classes = {name for group in layout.groups.values() for name in group.labels if name is not None}
        if classes and not classes & set(labels.values()):
            labels = None
    return Listed(table, False, splits, labels, files.count(None))


def _names_files(cells: Sequence[str], files: Sequence[str | None]) -> bool:
    """Whether a list of a split names files: nearly always, or wherever one of its paths is there at all."""
    found = len(files) - files.count(None)
    paths = sum(os.path.splitext(cell)[1] != "" for cell in cells)
    return found >= _MOST * len(files) or (found > 0 and paths >= _MOST * len(cells))


def _merged(layout: Layout, tables: Sequence[Listed]) -> Layout:
    """The groups with the splits and labels of the tables."""
    splits: dict[str, str | None] = {}
    labels: dict[str, str | None] = {}
    has_labels = any(found.labels is not None for found in tables)
    # What one names for testing or validation and another for training is not trained on.
    for found in sorted(tables, key=lambda found: _CAUTION.index(role(plain_stem(found.name)))):
        splits |= found.splits
        for file, name in (found.labels or {}).items():
            if labels.setdefault(file, name) != name:
                raise DataError(
                    f"{found.name!r} says the class {name!r} of {shortened(file)!r}, "
                    f"another table {labels[file]!r}: leave one of them"
                )
    whole = any(found.whole for found in tables)
    roles = {role(name) for name in splits.values() if name}
    whole = whole or TRAIN in roles
    single = len(layout.groups) == 1
    groups: dict[str, Group] = {}
    left = 0
    for name, group in layout.groups.items():
        relisted = [group.base + file in splits for file in group.files]
        # A table in one split's folder says nothing of another split.
        strict = whole and (single or any(relisted))
        for file, label, known in zip(group.files, group.labels, relisted, strict=True):
            path = group.base + file
            if strict and not known:
                left += 1
                continue
            target = (splits.get(path) if single or splits.get(path) in layout.groups else None) or name
            of_split = groups.setdefault(target, Group("", [], []))
            of_split.files.append(path)
            text = labels.get(path) if has_labels and (known or single) else label
            of_split.labels.append(None if text is None else printable(text))
    notes = [f"{left:,} file(s) that no row names"] if left else []
    return layout._replace(groups=groups, left=[*layout.left, *notes])


def _described(found: Listed) -> str:
    classes = (
        "splits and classes"
        if found.labels is not None and any(found.splits.values())
        else ("classes" if found.labels is not None else "splits")
    )
    unknown = f"; {found.unknown:,} row(s) name no file that is there" if found.unknown else ""
    return f"{printable(found.name)} says the {classes} of {len(found.splits):,} file(s){unknown}"
