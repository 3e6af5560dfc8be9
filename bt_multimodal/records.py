"""Opening data: a folder, a manifest, Parquet, a hub dataset or an embedded set -> undecoded records."""

import contextlib
import copy
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bt_multimodal.tables import (
    LABEL_COLUMNS,
    TEST_SPLITS,
    Asked,
    DataError,
    Split,
    anywhere,
    class_name,
    find_column,
    find_splits,
    shortened,
    there_are,
)
from bt_multimodal.tars import Stretch

_CONTENT_TYPES = re.compile(r"(large_)?(binary|string)$|struct<(bytes|path)\b|list<\w+: list<\w+: uint8>>$")


class Records:
    """A sequence of raw records, undecoded; `open_records` makes them.

    Args:
        table: a `datasets.Dataset` formatted as Arrow, of whose first column a cell is a record.
        rows: ``[N]`` int64, the rows of the table to take.
        locate: from a string in a cell to what it names; raises OSError for what may not be read.
        origin: how to name the table.

    Attributes:
        labels: ``[N]`` int64, an index into `classes`, or -1 without label.
        classes: the class names.
    """

    def __init__(
        self,
        table: Any,
        rows: Tensor,
        labels: Tensor,
        classes: list[str],
        locate: Callable[[str], Path | Stretch | bytes],
        origin: str,
    ):
        self.labels, self.classes = labels, classes
        self._table, self._rows, self._locate, self._origin = table, rows, locate, origin

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
        found = self._locate(item) if isinstance(item, str) else item
        return found.read_bytes() if isinstance(found, Stretch) else found

    def name(self, i: int) -> str:
        """How to name record ``i`` in a warning: its path, or ``train.parquet row 17`` (from 0)."""
        item = self._item(i)
        if isinstance(item, str):
            with contextlib.suppress(OSError):
                return shortened(str(self._locate(item)), 300)
        return f"{self._origin} row {int(self._rows[i])}"

    def subset(self, indices: Tensor | Sequence[int]) -> "Records":
        """The records at ``indices``, in that order; the classes stay."""
        part = copy.copy(self)
        at = torch.as_tensor(indices, dtype=torch.long)
        part._rows, part.labels = self._rows[at], self.labels[at]
        return part

    def _item(self, i: int) -> bytes | np.ndarray | str | None:
        """What the cell holds: contents or, a string, where they are."""
        item = self._cell(i)
        if isinstance(item, dict):
            item = item.get("path") if item.get("bytes") is None else item["bytes"]
        if isinstance(item, list):
            return np.array(item, np.uint8)
        return item if isinstance(item, bytes | str) else None

    def _cell(self, i: int) -> Any:
        return self._table[int(self._rows[i])].column(0)[0].as_py()


class Splits(NamedTuple):
    """Training and test records with the same classes; ``held_out``: test was drawn from train."""

    train: Records
    test: Records
    held_out: bool


def open_records(
    source: str,
    *,
    extensions: tuple[str, ...],
    content_columns: tuple[str, ...],
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]] | None = None,
    content_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    require_labels: bool = False,
) -> Splits:
    """Open the training and test records of a source; nothing is decoded.

    Without a test split 20 % of train are held out (`stratified_split`, seed 0). Classes are those of
    train: in the order the source declares, else sorted, as numbers where all of them are numbers.

    Args:
        source: a folder of files, with or without ``train/`` and ``test/`` (``val/``, ``valid/``,
            ``validation/``), first-level folders below being the classes (``train/`` is a split only
            beside one of those or alone: elsewhere it is a class); a manifest ``.csv``, ``.tsv`` or
            ``.jsonl`` of paths relative to it, with an optional column ``split``; a ``.parquet`` or
            ``.tar`` file (WebDataset), or a folder of them named after their splits; a hub dataset
            ``owner/name`` or ``name``, and ``:config`` if it has several; a name of ``embedded``.
            A manifest is the user's own and may name files anywhere; a Parquet file's paths stay
            within its folder, and a hub dataset's rows hold contents, not paths.
        extensions: of the files to take from a folder, in either case (``(".jpg", ".png")``), and of
            the member of a tar file's sample, the first that is there.
        content_columns: looked for in that order when ``content_column`` is not given. The column
            holds file contents or paths, or a struct of ``bytes`` and ``path``.
        embedded: sets that need no files, by name: functions giving a table's columns.
        label_column: by default the first of label, labels, class, target, category, fine_label, cls;
            of a tar file's samples, the extension of a text.
        require_labels: fail when a record has no label.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    asked = Asked(
        extensions,
        content_column,
        content_columns,
        label_column,
        bool(train_split or test_split),
    )
    splits = find_splits(source, asked, embedded or {})
    train = train_split or (next(iter(splits)) if len(splits) == 1 and not test_split else "train")
    test = test_split or next((name for name in TEST_SPLITS if name in splits and name != train), None)
    for name in filter(None, (train, test)):
        if name not in splits:
            raise DataError(f"{source!r} has no split {name!r}; {there_are('splits', [name], list(splits))}")

    def read(split: Split, classes: list[str] | None = None) -> Records:
        table = split.load()
        if not len(table):
            raise DataError(f"{split.origin} has no records")
        content = find_column("content", content_column, content_columns, table.column_names, split.origin)
        kind = str(table.data.schema.field(content).type)
        if not _CONTENT_TYPES.match(kind):
            column = f"column {shortened(content)!r} of {split.origin}"
            raise DataError(f"{column} holds {shortened(kind)}, not file contents or paths")
        names: list[str | None] = [None] * len(table)
        if label_column or require_labels or any(name in table.column_names for name in LABEL_COLUMNS):
            label = find_column("label", label_column, LABEL_COLUMNS, table.column_names, split.origin)
            declared = getattr(table.features[label], "names", None)
            values = table.select_columns([label]).with_format("arrow")[:].column(0)
            # One at a time: they may be long.
            names = [class_name(value.as_py(), declared, label, split.origin) for value in values]
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
        contents = table.select_columns([content]).with_format("arrow")  # which bypasses every decoder
        return Records(contents, torch.arange(len(labels)), labels, classes, split.locate, split.origin)

    records = read(splits[train])
    if test:
        return Splits(records, read(splits[test], records.classes), held_out=False)
    if len(records) < 2:
        raise DataError(f"{source!r} has 1 record and no test split: nothing can be held out")
    rest, held = stratified_split(records.labels, 0.2, seed=0)
    return Splits(records.subset(rest), records.subset(held), held_out=True)


def file_records(root: Path, files: Sequence[str], labels: Tensor, classes: list[str]) -> Records:
    """Records of files that are known by name: ``files [N]`` relative to ``root``, ``labels [N]`` int64."""
    from datasets import Dataset

    table = Dataset.from_dict({"file": list(files)}).with_format("arrow")
    return Records(table, torch.arange(len(files)), labels, classes, partial(anywhere, root), str(root))


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
