"""Opening data: a folder, a manifest, Parquet, a hub dataset or an embedded set -> undecoded records."""

import contextlib
import copy
import io
import math
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
    shortened,
    there_are,
)
from bt_multimodal.data.tables import TEST_SPLITS, Asked, Split, anywhere, find_splits
from bt_multimodal.data.tars import Stretch
from bt_multimodal.modality import Modality


class Cells:
    """The contents of a table by row.

    Args:
        table: a `datasets.Dataset`.
        columns: where a row's content is; that of several is `joined`.
    """

    def __init__(self, table: Any, columns: Sequence[str]):
        self._columns = columns
        kept = table.select_columns(list(dict.fromkeys(columns)))
        self._table = kept.with_format("arrow")  # which bypasses every decoder

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> Any:
        found = self._table[row]
        return joined([found.column(name)[0].as_py() for name in self._columns])


class Part(NamedTuple):
    """Contents of one origin."""

    cells: Any  # `Cells`, or a list of what they hold
    locate: Callable[[str], Path | Stretch | bytes]  # raises OSError for what may not be read
    origin: str  # how to name it


class Records:
    """A sequence of raw records, undecoded; `open_records` makes them.

    Args:
        parts: where the contents are, one after the other.
        rows: ``[N]`` int64, those to take, counted over all the parts.

    Attributes:
        labels: ``[N]`` int64, an index into `classes`, or -1 without label.
        classes: the class names.
    """

    def __init__(self, parts: Sequence[Part], rows: Tensor, labels: Tensor, classes: list[str]):
        self.labels, self.classes = labels, classes
        self._parts, self._rows = parts, rows
        self._ends = list(accumulate(len(part.cells) for part in parts))

    def __len__(self) -> int:
        return len(self._rows)

    def raw(self, i: int) -> bytes | np.ndarray:
        """Content of record ``i``: the bytes of its file, or an array for an embedded set.

        Raises:
            OSError: the record is empty, its file cannot be read, or may not be.
        """
        item = self._content(i)
        return item.read_bytes() if isinstance(item, Path) else item

    def open(self, i: int) -> BinaryIO:
        """Content of record ``i`` as an open file, to be closed by the caller.

        Raises:
            OSError: as `raw`.
        """
        item = self._content(i)
        return item.open("rb") if isinstance(item, Path) else io.BytesIO(bytes(item))

    def _content(self, i: int) -> bytes | np.ndarray | Path:
        item = self._item(i)
        if item is None:
            raise OSError(f"{self.name(i)} is empty")
        found = self._at(i)[0].locate(item) if isinstance(item, str) else item
        return found.read_bytes() if isinstance(found, Stretch) else found

    def name(self, i: int) -> str:
        """How to name record ``i`` in a warning: its path, or ``train.parquet row 17`` (from 0)."""
        part, row = self._at(i)
        with contextlib.suppress(OSError):
            item = self._item(i)
            found = part.locate(item) if isinstance(item, str) else None
            if isinstance(found, Path | Stretch):
                return shortened(str(found), 300)
        return f"{part.origin} row {row}"

    def contents(self) -> Iterator[bytes | np.ndarray]:
        """All undecoded contents in order; those that cannot be read are left out."""
        for i in range(len(self)):
            with contextlib.suppress(OSError):  # named and counted when it is decoded
                yield self.raw(i)

    def subset(self, indices: Tensor | Sequence[int]) -> "Records":
        """The records at ``indices``, in that order; the classes stay."""
        part = copy.copy(self)
        at = torch.as_tensor(indices, dtype=torch.long)
        part._rows, part.labels = self._rows[at], self.labels[at]
        return part

    def _at(self, i: int) -> tuple[Part, int]:
        """The part that has a record, and its row there."""
        row = int(self._rows[i])
        part = bisect_right(self._ends, row)
        return self._parts[part], row - (self._ends[part - 1] if part else 0)

    def _item(self, i: int) -> bytes | np.ndarray | str | None:
        """What the cell holds: contents or, a string, what `Part.locate` takes."""
        part, row = self._at(i)
        try:
            item = part.cells[row]
        except UnicodeDecodeError as error:  # of a table's strings nobody has checked that they are
            raise OSError(f"{part.origin} row {row} is no text: {error}") from error
        if isinstance(item, dict):
            item = item.get("path") if item.get("bytes") is None else item["bytes"]
        if isinstance(item, list):
            return np.array(item, np.uint8)
        return item if isinstance(item, bytes | str) else None


class Splits(NamedTuple):
    """Training and test records with the same classes; ``held_out``: test was drawn from train."""

    train: Records
    test: Records
    held_out: bool


def open_source(source: str | Sequence[str], modality: Modality, **options: Any) -> Splits:
    """The training and test records of a source of one modality.

    Args:
        source, options: as in `open_records`, which this calls with what the modality says of its data.
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
    """Open the training and test records of a source; nothing is decoded.

    Without a test split 20 % of train are held out (`stratified_split`, seed 0). Classes are those of
    train: in the order the source declares, else sorted, as numbers where all of them are numbers.

    Several sources are each opened so and then one: train is all of train and test all of test, in
    order, held out only where no source has a test split. Classes are told apart by name; there are
    none where any source has records without labels in train.

    Args:
        source: a folder of files, with or without ``train/`` and ``test/`` (``val/``, ``valid/``,
            ``validation/``), first-level folders below being the classes (``train/`` is a split only
            beside one of those or alone: elsewhere it is a class); a manifest ``.csv``, ``.tsv`` or
            ``.jsonl`` of paths relative to it, with an optional column ``split``; a ``.parquet`` or
            ``.tar`` file (WebDataset), or a folder of them named after their splits; a hub dataset
            ``owner/name`` or ``name``, and ``:config`` if it has several; a name of ``embedded``.
            A manifest is the user's own and may name files anywhere; a Parquet file's paths stay
            within its folder, and a hub dataset's rows hold contents, not paths. Or several of these.
        extensions: of the files to take from a folder, in either case (``(".jpg", ".png")``), and of
            the member of a tar file's sample, the first that is there.
        content_columns: looked for in that order when ``content_column`` is not given. The column
            holds file contents or paths, or a struct of ``bytes`` and ``path``.
        embedded: sets that need no files, by name: functions giving a table's columns.
        label_column: by default the first of label, labels, class, target, category, fine_label, cls;
            of a tar file's samples, the extension of a text.
        require_labels: fail when a record has no label.
        inline: strings in cells are contents themselves, in UTF-8, the empty one too. A ``.txt`` of a
            content a line is a source as well, and so is a folder of ``.txt``, ``.csv``, ``.tsv`` or
            ``.jsonl`` files named after their splits. Columns may be compound: the cells of ``"a+b"``
            are joined by a space, those of ``"a,b"`` are records each, all of ``a`` before all of ``b``.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    sources = [source] if isinstance(source, str) else list(source)
    asked = Asked(
        extensions,
        content_column,
        content_columns,
        label_column,
        bool(train_split or test_split),
        inline,
    )
    if not sources:
        raise DataError("there is no source")
    found = [_open(one, asked, embedded or {}, train_split, test_split, require_labels) for one in sources]
    trains, tests = [train for train, _ in found], [test for _, test in found if test is not None]
    classes = _common_classes(trains)
    train = _chained(trains, classes)
    if tests:
        return Splits(train, _chained(tests, classes), held_out=False)
    if len(train) < 2:
        raise DataError(f"{source!r} has 1 record and no test split: nothing can be held out")
    rest, held = stratified_split(train.labels, 0.2, seed=0)
    return Splits(train.subset(rest), train.subset(held), held_out=True)


def _open(
    source: str,
    asked: Asked,
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]],
    train_split: str | None,
    test_split: str | None,
    require_labels: bool,
) -> tuple[Records, Records | None]:
    """Train and, if there is one, test of a source."""
    splits = find_splits(source, asked, embedded)
    train = train_split or (next(iter(splits)) if len(splits) == 1 and not test_split else "train")
    test = test_split or next((name for name in TEST_SPLITS if name in splits and name != train), None)
    for name in filter(None, (train, test)):
        if name not in splits:
            raise DataError(f"{source!r} has no split {name!r}; {there_are('splits', [name], list(splits))}")
    records = _read(splits[train], asked, require_labels)
    return records, _read(splits[test], asked, require_labels, records.classes) if test else None


class LabelledParts(NamedTuple):
    """A split's contents, every part of the same ``N`` rows, and the class of each row, if it has one.

    ``declared`` are the classes that the source says there are, ``None`` where it has no such list.
    """

    parts: list[Part]
    names: list[str | None]
    declared: list[str] | None


def read_parts(split: Split, asked: Asked, require_labels: bool) -> LabelledParts:
    """Open a split; a part for each of the columns that are records of their own.

    Args:
        require_labels: fail where there is no column of labels.

    Raises:
        DataError: no records, or columns that are missing or hold something else.
    """
    table = split.load()
    if not len(table):
        raise DataError(f"{split.origin} has no records")
    groups = find_contents(asked.content, asked.contents, table.column_names, split.origin, asked.inline)
    schema = table.data.schema
    check_contents({name: schema.field(name).type for name in chain(*groups)}, split.origin, asked.inline)
    names: list[str | None] = [None] * len(table)
    declared = None
    if asked.label or require_labels or any(name in table.column_names for name in LABEL_COLUMNS):
        label = find_column("label", asked.label, LABEL_COLUMNS, table.column_names, split.origin)
        declared = getattr(table.features[label], "names", None)
        values = table.select_columns([label]).with_format("arrow")[:].column(0)
        # One at a time: they may be long.
        names = [class_name(value.as_py(), declared, label, split.origin) for value in values]
    parts = [Part(Cells(table, group), split.locate, split.origin) for group in groups]
    return LabelledParts(parts, names, declared)


def _read(split: Split, asked: Asked, require_labels: bool, classes: list[str] | None = None) -> Records:
    parts, names, declared = read_parts(split, asked, require_labels)
    classes = declared if classes is None else classes
    if classes is None:
        classes = _sorted({name for name in names if name is not None})
    index: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
    for name in names:
        if name not in index:
            there = there_are("classes", [str(name)], classes)
            shown = shortened(str(name))
            raise DataError(f"class {shown!r} of {split.origin} is not in the training split; {there}")
    labels = torch.tensor([index[name] for name in names])
    unlabelled = int((labels < 0).sum())
    if require_labels and unlabelled:
        raise DataError(f"{unlabelled} of {len(labels)} records of {split.origin} have no label")
    return Records(parts, torch.arange(len(parts) * len(labels)), labels.repeat(len(parts)), classes)


def _common_classes(trains: Sequence[Records]) -> list[str]:
    """Those of any, or none where one has records without a label."""
    if len(trains) > 1 and any((train.labels < 0).any() for train in trains):
        return []
    names = list(dict.fromkeys(chain.from_iterable(train.classes for train in trains)))
    undeclared = all(train.classes == _sorted({*train.classes}) for train in trains)
    return _sorted({*names}) if undeclared else names


def _chained(records: Sequence[Records], classes: list[str]) -> Records:
    """All records, one after the other, as ``classes``; -1 where a class is none of them."""
    index = {name: i for i, name in enumerate(classes)}
    labels = [
        torch.tensor([*(index.get(name, -1) for name in one.classes), -1])[one.labels] for one in records
    ]
    parts = [part for one in records for part in one._parts]
    return Records(parts, torch.arange(sum(map(len, records))), torch.cat(labels), classes)


def file_records(root: Path, files: Sequence[str], labels: Tensor, classes: list[str]) -> Records:
    """Records of files that are known by name: ``files [N]`` relative to ``root``, ``labels [N]`` int64."""
    from datasets import Dataset

    cells = Cells(Dataset.from_dict({"file": list(files)}), ["file"])
    return Records(
        [Part(cells, partial(anywhere, root), str(root))], torch.arange(len(files)), labels, classes
    )


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out ``ceil(share * N)`` of ``N`` samples at random, each class in proportion.

    Args:
        labels: ``[N]`` integers; every value is a class, so all -1 makes a plain random split.
        share: of the samples to hold out, from 0 to 1.

    Returns:
        Sorted indices ``(rest, held out)``; the same for the same arguments.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is from 0 to 1, not {share}")
    n = len(labels)
    _, of, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    exact = sizes.double() * share
    quota = (exact + 1e-9).floor().long()  # the margins undo rounding: 0.07 * 100 is above 7 in binary
    missing = math.ceil(share * n - 1e-9) - int(quota.sum())
    quota[torch.argsort(exact - quota, descending=True, stable=True)[:missing]] += 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(of[order], stable=True)]
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes)[of[order]]
    held = rank < quota[of[order]]
    return order[~held].sort().values, order[held].sort().values


def _sorted(names: set[str]) -> list[str]:
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)
