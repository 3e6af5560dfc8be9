"""Opening a folder, a manifest, Parquet, tar, a hub dataset or an embedded set as undecoded records."""

import contextlib
import copy
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.data.columns import (
    LABEL_COLUMNS,
    DataError,
    check_contents,
    class_name,
    find_column,
    find_contents,
    joined,
    known_column,
    printable,
    shortened,
    sorted_classes,
    there_are,
)
from bt_multimodal.data.sources.folders import Split, below, escaped
from bt_multimodal.data.sources.split_names import VALIDATION, choose, role
from bt_multimodal.data.sources.summary import Found
from bt_multimodal.data.sources.tables import SourceOptions, find_splits
from bt_multimodal.data.sources.tars import Stretch
from bt_multimodal.data.splitting import hold_out
from bt_multimodal.modality import Modality
from bt_multimodal.safe_files import LARGEST_RECORD, open_regular, read_regular


class Cells:
    """The contents of a table, indexed by row.

    Args:
        table: a `datasets.Dataset`.
        columns: the columns of a row's content; several cells are `joined`.
    """

    def __init__(self, table: Any, columns: Sequence[str]):
        self._columns = columns
        selected = table.select_columns(list(dict.fromkeys(columns)))
        self._table = selected.with_format("arrow")  # bypasses every decoder

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> Any:
        cells = self._table[row]
        return joined([cells.column(name)[0].as_py() for name in self._columns])


class Part(NamedTuple):
    """Contents from one origin."""

    cells: Any  # `Cells`, or a list of the same values
    locate: Callable[[str], Path | Stretch | bytes]  # raises OSError for a path that must not be read
    origin: str  # its name in messages


class Records:
    """A sequence of undecoded records, as `open_records` returns them.

    Args:
        parts: the contents, one part after the other.
        rows: ``[N]`` int64, the rows of the records, counted over all parts.
        labels: ``[N]`` int64.
        classes: the class names.

    Attributes:
        labels: ``[N]`` int64, indices into `classes`; -1 without a label.
        classes: the class names.
    """

    def __init__(self, parts: Sequence[Part], rows: Tensor, labels: Tensor, classes: list[str]):
        self.labels, self.classes = labels, classes
        self._parts, self._rows = parts, rows
        self._ends = list(accumulate(len(part.cells) for part in parts))

    def __len__(self) -> int:
        return len(self._rows)

    def raw(self, i: int) -> bytes | np.ndarray:
        """The content of record ``i``: the bytes of its file, or an array for an embedded set.

        Raises:
            OSError: the record is empty, or its file cannot or must not be read.
        """
        content = self._content(i)
        return read_regular(content, LARGEST_RECORD) if isinstance(content, Path) else content

    def open(self, i: int) -> BinaryIO:
        """The content of record ``i`` as an open file, which the caller closes.

        Raises:
            OSError: as `raw`.
        """
        content = self._content(i)
        return open_regular(content) if isinstance(content, Path) else io.BytesIO(bytes(content))

    def _content(self, i: int) -> bytes | np.ndarray | Path:
        cell = self._cell(i)
        if cell is None:
            raise OSError(f"{self.name(i)} is empty")
        content = self._part_and_row(i)[0].locate(cell) if isinstance(cell, str) else cell
        return content.read_bytes() if isinstance(content, Stretch) else content

    def name(self, i: int) -> str:
        """The name of record ``i`` in messages: its path, or ``train.parquet row 17`` (from 0)."""
        part, row = self._part_and_row(i)
        with contextlib.suppress(OSError):
            cell = self._cell(i)
            location = part.locate(cell) if isinstance(cell, str) else None
            if isinstance(location, Path | Stretch):
                return shortened(printable(str(location)), 300)
        return f"{part.origin} row {row}"

    def contents(self) -> Iterator[bytes | np.ndarray]:
        """All undecoded contents in order; those that cannot be read are skipped."""
        for i in range(len(self)):
            with contextlib.suppress(OSError):  # decoding names and counts it
                yield self.raw(i)

    def subset(self, indices: Tensor | Sequence[int]) -> "Records":
        """The records at ``indices``, in that order, with the same classes."""
        subset = copy.copy(self)
        indices = torch.as_tensor(indices, dtype=torch.long)
        subset._rows, subset.labels = self._rows[indices], self.labels[indices]
        return subset

    def _part_and_row(self, i: int) -> tuple[Part, int]:
        """The part that holds record ``i``, and its row there."""
        row = int(self._rows[i])
        k = bisect_right(self._ends, row)
        return self._parts[k], row - (self._ends[k - 1] if k else 0)

    def _cell(self, i: int) -> bytes | np.ndarray | str | None:
        """The cell of record ``i``: its content, or a string for `Part.locate`."""
        part, row = self._part_and_row(i)
        try:
            cell = part.cells[row]
        except UnicodeDecodeError as error:  # nobody has checked that the table's strings are valid UTF-8
            raise OSError(f"{part.origin} row {row} is not valid UTF-8: {error}") from error
        if isinstance(cell, dict):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, list):
            return np.array(cell, np.uint8)
        return cell if isinstance(cell, bytes | str) else None


class Splits(NamedTuple):
    """Training and test records with the same classes.

    Attributes:
        train: the training records.
        test: the test records; none if nothing has a label and there is no test split.
        held_out: whether the test records are from train.
        found: what was found in each source.
    """

    train: Records
    test: Records
    held_out: bool
    found: tuple[Found, ...] = ()


def open_source(source: str | Sequence[str], modality: Modality, **options: Any) -> Splits:
    """The training and test records of a source of one modality.

    Args:
        source, options: as in `open_records`.
        modality: provides the other arguments of `open_records`.

    Raises:
        DataError: as in `open_records`.
    """
    return open_records(
        source,
        extensions=modality.extensions,
        content_columns=modality.columns,
        embedded=modality.embedded,
        inline=modality.inline,
        **options,
    )


def open_records(
    source: str | Sequence[str],
    *,
    extensions: tuple[str, ...],
    content_columns: tuple[str, ...],
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]] | None = None,
    content_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    require_labels: bool = False,
    inline: bool = False,
) -> Splits:
    """Open the training and test records of a source, without decoding them.

    Without a test split, 20 % of the labelled records of train are held out (`hold_out`, seed 0); without
    labels nothing is. The classes are those of train, in the order that the source declares or else sorted,
    as numbers if all of them are numbers. A cell that is empty or null is no label, nor is -1 where there is
    no other; any other text is one, even ``nan``.

    What is named for testing or validation is never trained on, unless the user names it for training
    (`split_names.choose`). If the test split has no labels and a validation split has, that is tested on.

    Several sources are opened in this way and then joined, in order: train with train, test with test.
    Records are held out only if no source has a test split. Classes of the same name are one class.

    Args:
        source: one of these, or a sequence of them:

            * a folder of files, with or without folders of splits (``train/`` and ``test/``, ``Training/``
              and ``val/``, ``train-clean-100/`` and ``dev-clean/``); the first-level folders below are the
              classes (`layout.arrange`). ``train/`` is a split only if it is alone or next to another, and
              otherwise a class. A table or list beside the files that names them says their splits and
              classes (`listings.applied`).
            * a manifest ``.csv``, ``.tsv`` or ``.jsonl``, which may be compressed, with paths relative to
              it and an optional column ``split``. It is the user's own and may name files anywhere.
            * a ``.parquet`` or ``.tar`` file (WebDataset), or a folder of them named after their splits.
              The paths in a Parquet file must stay within its folder.
            * a hub dataset ``owner/name`` or ``name``, followed by ``:config`` if it has several. Its
              rows hold contents, not paths.
            * a name from ``embedded``.
        extensions: of the files in a folder, in upper or lower case (``(".jpg", ".png")``); of a sample
            in a tar file, the first that it has is the content.
        content_column: the column of contents: file contents, paths, or structs of ``bytes`` and ``path``.
        content_columns: by default, the first of these columns that exists.
        embedded: data sets without files: functions that return a table's columns, by name.
        label_column: by default the first of label, labels, class, target, category, fine_label, cls.
            For a tar file, the extension of the member with the label.
        train_split, test_split: names of the splits, several between commas; found by convention by
            default.
        require_labels: fail if a record has no label.
        inline: strings in cells are contents, in UTF-8, even empty ones. Two more kinds of source are
            allowed: a ``.txt`` file with one record per line, and a folder of ``.txt``, ``.csv``,
            ``.tsv`` or ``.jsonl`` files named after their splits. Column names may be compound: the
            cells of ``"a+b"`` are joined by a space; the cells of ``"a,b"`` are separate records, all of
            ``a`` before all of ``b``.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    sources = [source] if isinstance(source, str) else list(source)
    options = SourceOptions(
        extensions,
        content_column,
        content_columns,
        label_column,
        bool(train_split or test_split),
        inline,
    )
    if not sources:
        raise DataError("no source is given")
    opened = [
        _open(name, options, embedded or {}, train_split, test_split, require_labels) for name in sources
    ]
    found = tuple(source.found for source in opened)
    tests = [source.test for source in opened if source.test is not None]
    classes = _common_classes([source.train for source in opened])
    train = _chained([source.train for source in opened], classes)
    if tests:
        return Splits(train, _chained(tests, classes), False, found)
    if len(train) < 2:
        raise DataError(f"{source!r} has 1 record and no test split: nothing can be held out")
    if not (train.labels >= 0).any():
        return Splits(train, train.subset([]), False, found)
    rest, held_out = hold_out(train.labels, 0.2, seed=0)
    return Splits(train.subset(rest), train.subset(held_out), True, found)


class _Opened(NamedTuple):
    train: Records
    test: Records | None
    found: Found


def _open(
    source: str,
    options: SourceOptions,
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]],
    train_split: str | None,
    test_split: str | None,
    require_labels: bool,
) -> _Opened:
    """The training records of a source, and its test records if it has any."""
    splits, found = find_splits(source, options, embedded)
    chosen = choose(source, list(splits), train_split, test_split)
    notes, left = [*found.notes, *chosen.notes], list(chosen.left)
    train = _read([splits[name] for name in chosen.train], options, require_labels, notes)
    test = None
    tests = chosen.test
    if tests:
        test = _read([splits[name] for name in tests], options, require_labels, notes, train)
        spare = [name for name in left if role(name) == VALIDATION]
        if spare and not test_split and (train.labels >= 0).any() and not (test.labels >= 0).any():
            other = _read([splits[name] for name in spare], options, require_labels, notes, train)
            if (
                other.labels >= 0
            ).any():  # as in GLUE and on Kaggle, where the labels for testing are kept back
                left = [name for name in left if name not in spare] + tests
                notes.append(f"tests on {', '.join(spare)}, for {', '.join(tests)} has no labels")
                test, tests = other, spare
    took = [f"train is {', '.join(chosen.train)}"] if chosen.train != ["train"] else []
    took += [f"test is {', '.join(tests)}"] if tests not in ([], ["test"]) else []
    listed = (*found.listed, *([f"{'; '.join(took)}"] if took else []))
    sizes = {name: splits[name].size() for name in left}
    unused = [f"the split {name}" + ("" if n is None else f" ({n:,} records)") for name, n in sizes.items()]
    found = found._replace(notes=tuple(notes), left=(*found.left, *unused), listed=listed)
    return _Opened(train, test, found)


class SplitContents(NamedTuple):
    """The contents of a split and the class names of its rows.

    Attributes:
        parts: the contents, each part with the same ``N`` rows.
        names: the class name of each row, ``None`` without a label.
        declared: the classes that the source declares, ``None`` if it declares none.
    """

    parts: list[Part]
    names: list[str | None]
    declared: list[str] | None


def read_parts(split: Split, options: SourceOptions, require_labels: bool) -> SplitContents:
    """Open a split: one part for each column, or group of joined columns, that holds records.

    Args:
        require_labels: fail if there is no column of labels.

    Raises:
        DataError: no records, or a column that does not exist or has the wrong type.
    """
    table = split.load()
    if not len(table):
        raise DataError(f"{split.origin} has no records")
    groups = find_contents(
        options.content_column, options.content_columns, table.column_names, split.origin, options.inline
    )
    schema = table.data.schema
    check_contents({name: schema.field(name).type for name in chain(*groups)}, split.origin, options.inline)
    names: list[str | None] = [None] * len(table)
    declared = None
    if options.label_column or require_labels or known_column(LABEL_COLUMNS, table.column_names):
        label = find_column("label", options.label_column, LABEL_COLUMNS, table.column_names, split.origin)
        declared = getattr(table.features[label], "names", None)
        values = table.select_columns([label]).with_format("arrow")[:].column(0)
        # One at a time: labels may be long.
        names = [class_name(value.as_py(), declared, label, split.origin) for value in values]
        if {*names} - {None} == {"-1"}:  # the convention for labels that are kept back
            names = [None] * len(names)
    parts = [Part(Cells(table, group), split.locate, split.origin) for group in groups]
    return SplitContents(parts, names, declared)


def _read(
    splits: Sequence[Split],
    options: SourceOptions,
    require_labels: bool,
    notes: list[str],
    train: Records | None = None,
) -> Records:
    """The records of several splits, one after the other.

    Args:
        notes: lines to the user are added here.
        train: the training records, whose classes these have; by default these are the training records.
    """
    opened = [read_parts(split, options, require_labels) for split in splits]
    classes = _classes(opened) if train is None else train.classes
    index: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
    if train is not None and not require_labels:
        opened = [_known(content, split, index, notes) for content, split in zip(opened, splits, strict=True)]
    labels: list[Tensor] = []
    for content, split in zip(opened, splits, strict=True):
        for name in content.names:
            if name not in index:
                available = there_are("classes", [str(name)], classes)
                shown = shortened(str(name))
                raise DataError(
                    f"class {shown!r} of {split.origin} is not in the training split; {available}"
                )
        own = torch.tensor([index[name] for name in content.names])
        unlabelled = int((own < 0).sum())
        if require_labels and unlabelled:
            raise DataError(f"{unlabelled} of {len(own)} records of {split.origin} have no label")
        labels.append(own.repeat(len(content.parts)))
    parts = [part for content in opened for part in content.parts]
    joined_labels = torch.cat(labels)
    return Records(parts, torch.arange(len(joined_labels)), joined_labels, classes)


def _classes(opened: Sequence["SplitContents"]) -> list[str]:
    declared = [content.declared for content in opened]
    if len({*map(str, declared)}) == 1 and declared[0] is not None:
        return declared[0]
    return sorted_classes({name for content in opened for name in content.names if name is not None})


def _known(
    content: "SplitContents", split: Split, index: Mapping[str | None, int], notes: list[str]
) -> "SplitContents":
    """A test split without labels if its classes are groups that train has none of, as other speakers."""
    names = {*content.names} - {None}
    if not (split.grouped and names and not names & {*index}):
        return content
    notes.append(
        f"none of the {len(names):,} folders of {split.origin} is a class of train: taken without labels"
    )
    return content._replace(names=[None] * len(content.names))


def _common_classes(trains: Sequence[Records]) -> list[str]:
    """The classes of all sources; those of a source without labels are none."""
    names = list(dict.fromkeys(chain.from_iterable(train.classes for train in trains)))
    undeclared = all(train.classes == sorted_classes({*train.classes}) for train in trains)
    return sorted_classes({*names}) if undeclared else names


def _chained(sources: Sequence[Records], classes: list[str]) -> Records:
    """The records of all sources in order, with labels for ``classes``; -1 for any other class."""
    index = {name: i for i, name in enumerate(classes)}
    labels = [
        torch.tensor([*(index.get(name, -1) for name in records.classes), -1])[records.labels]
        for records in sources
    ]
    parts = [part for records in sources for part in records._parts]
    return Records(parts, torch.arange(sum(map(len, sources))), torch.cat(labels), classes)


def file_records(root: Path, files: Sequence[str], labels: Tensor, classes: list[str]) -> Records:
    """Records of given files: ``files [N]`` relative to ``root``, ``labels [N]`` int64."""
    from datasets import Dataset

    cells = Cells(Dataset.from_dict({"file": list(map(escaped, files))}), ["file"])
    return Records([Part(cells, partial(below, root), str(root))], torch.arange(len(files)), labels, classes)
