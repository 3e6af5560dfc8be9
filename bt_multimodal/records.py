"""Opening data: a folder, a manifest, Parquet, a hub dataset or an embedded set -> undecoded records."""

import csv
import difflib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

_TEST_SPLITS = ("test", "val", "valid", "validation")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "fine_label")
_CONTENT_TYPES = re.compile(r"(large_)?(binary|string)$|struct<(bytes|path)\b|list<\w+: list<\w+: uint8>>$")
# Parquet up to this size is held in memory; above, `datasets` maps its on-disk cache instead.
_IN_MEMORY_BYTES = 2**30


class DataError(ValueError):
    """Data that cannot be opened as asked; the message is one line for the user."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Records:
    """A sequence of raw records, undecoded; `open_records` makes them.

    Attributes:
        labels: ``[N]`` int64, an index into `classes`, or -1 without label.
        classes: the class names.
    """

    def __init__(self, table: Any, rows: Tensor, labels: Tensor, classes: list[str], root: Path, origin: str):
        self.labels, self.classes = labels, classes
        self._table, self._rows, self._root, self._origin = table, rows, root, origin

    def __len__(self) -> int:
        return len(self._rows)

    def raw(self, i: int) -> bytes | np.ndarray:
        """Content of record ``i``: the bytes of its file, or an array for an embedded set.

        Raises:
            OSError: the record is empty, or its file cannot be read.
        """
        item = self._content(i)
        return item.read_bytes() if isinstance(item, Path) else item

    def open(self, i: int) -> BinaryIO:
        """Content of record ``i`` as an open file, to be closed by the caller.

        Raises:
            OSError: the record is empty, or its file cannot be opened.
        """
        item = self._content(i)
        return item.open("rb") if isinstance(item, Path) else io.BytesIO(bytes(item))

    def _content(self, i: int) -> bytes | np.ndarray | Path:
        item = self._item(i)
        if item is None:
            raise OSError(f"{self.name(i)} is empty")
        return item

    def name(self, i: int) -> str:
        """How to name record ``i`` in a warning: its path, or ``train.parquet row 17`` (from 0)."""
        item = self._item(i)
        return str(item) if isinstance(item, Path) else f"{self._origin} row {int(self._rows[i])}"

    def subset(self, indices: Tensor | Sequence[int]) -> "Records":
        """The records at ``indices``, in that order; the classes stay."""
        at = torch.as_tensor(indices, dtype=torch.long)
        return Records(self._table, self._rows[at], self.labels[at], self.classes, self._root, self._origin)

    def _item(self, i: int) -> bytes | np.ndarray | Path | None:
        item = self._table[int(self._rows[i])].column(0)[0].as_py()
        item = unwrap(item)
        if isinstance(item, list):
            return np.array(item, np.uint8)
        return self._root / item if isinstance(item, str) else item


def unwrap(item: Any) -> Any:
    """A cell's bytes or path, of a struct of both the bytes if there are any."""
    if isinstance(item, dict):
        return item.get("path") if item.get("bytes") is None else item["bytes"]
    return item


class Splits(NamedTuple):
    """Training and test records with the same classes; ``held_out``: test was drawn from train."""

    train: Records
    test: Records
    held_out: bool


class _Split(NamedTuple):
    origin: str  # how to name it in a message
    root: Path  # what its paths are relative to
    load: Callable[[], Any]  # -> datasets.Dataset


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
            ``.jsonl`` of paths relative to it, with an optional column ``split``; a ``.parquet`` file,
            or a folder of them named after their splits; a hub dataset ``owner/name`` or ``name``, and
            ``:config`` if it has several; a name of ``embedded``.
        extensions: of the files to take from a folder, in either case (``(".jpg", ".png")``).
        content_columns: looked for in that order when ``content_column`` is not given. The column
            holds file contents or paths, or a struct of ``bytes`` and ``path``.
        embedded: sets that need no files, by name: functions giving a table's columns.
        label_column: by default the first of label, labels, class, target, category, fine_label.
        require_labels: fail when a record has no label.

    Raises:
        DataError: what is wrong with the source, in one line.
    """
    named = bool(train_split or test_split)
    splits = _find_splits(source, extensions, named, content_columns[0], embedded or {})
    train = train_split or (next(iter(splits)) if len(splits) == 1 and not test_split else "train")
    test = test_split or next((name for name in _TEST_SPLITS if name in splits and name != train), None)
    for name in filter(None, (train, test)):
        if name not in splits:
            raise DataError(f"{source!r} has no split {name!r}; {_there('splits', [name], list(splits))}")

    def read(split: _Split, classes: list[str] | None = None) -> Records:
        table = split.load()
        if not len(table):
            raise DataError(f"{split.origin} has no records")
        content = find_column("content", content_column, content_columns, table.column_names, split.origin)
        kind = str(table.data.schema.field(content).type)
        if not _CONTENT_TYPES.match(kind):
            raise DataError(f"column {content!r} of {split.origin} holds {kind}, not file contents or paths")
        names: list[str | None] = [None] * len(table)
        if label_column or require_labels or any(name in table.column_names for name in _LABEL_COLUMNS):
            label = find_column("label", label_column, _LABEL_COLUMNS, table.column_names, split.origin)
            declared = getattr(table.features[label], "names", None)
            values = table.select_columns([label]).with_format("arrow")[:].column(0).to_pylist()
            names = [_class_name(value, declared) for value in values]
            classes = declared if classes is None else classes
        if classes is None:
            classes = _sorted({name for name in names if name is not None})
        index: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
        for name in names:
            if name not in index:
                there = _there("classes", [str(name)], classes)
                raise DataError(f"class {name!r} of {split.origin} is not in the training split; {there}")
        labels = torch.tensor([index[name] for name in names])
        unlabelled = int((labels < 0).sum())
        if require_labels and unlabelled:
            raise DataError(f"{unlabelled} of {len(labels)} records of {split.origin} have no label")
        contents = table.select_columns([content]).with_format("arrow")  # which bypasses every decoder
        return Records(contents, torch.arange(len(labels)), labels, classes, split.root, split.origin)

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
    return Records(table, torch.arange(len(files)), labels, classes, root, str(root))


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


def _there(what: str, wanted: Sequence[str], there: Sequence[str]) -> str:
    near = [match for name in wanted for match in difflib.get_close_matches(name, there, n=1)]
    shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return f"the {what} there are: {shown or 'none'}" + (f"; did you mean {near[0]!r}?" if near else "")


def find_column(kind: str, wanted: str | None, known: Sequence[str], columns: list[str], where: str) -> str:
    names = known if wanted is None else [wanted]
    for name in names:
        if name in columns:
            return name
    asked = " or ".join(map(repr, names))
    raise DataError(f"{where} has no {kind} column {asked}; {_there('columns', names, columns)}")


def _class_name(value: Any, declared: list[str] | None) -> str | None:
    if value is None or value == "" or value != value:  # NaN
        return None
    return str(value) if declared is None else declared[value] if value >= 0 else None


def _sorted(names: set[str]) -> list[str]:
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def _find_splits(
    source: str,
    extensions: tuple[str, ...],
    named: bool,
    content: str,
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]],
) -> dict[str, _Split]:
    """The splits of a source by name; ``named``: the user names splits, so layouts need not be guessed."""
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if source in embedded:
        return {"train": _Split(source, Path(), partial(_embedded, embedded[source]))}
    near = difflib.get_close_matches(source, embedded, n=1, cutoff=0.8)
    if near and "/" not in source and not path.exists():  # asking the hub for it takes long
        raise DataError(f"there is no embedded set {source!r}; did you mean {near[0]!r}?")
    if path.is_dir():
        files = sorted(path.glob("[!.]*.parquet")) or sorted((path / "data").glob("[!.]*.parquet"))
        return _parquet_splits(files, named) if files else _folder_splits(path, extensions, named, content)
    if path.is_file() and suffix == ".parquet":
        return {"train": _Split(path.name, path.parent, partial(_parquet, [path]))}
    if path.is_file() and suffix in (".csv", ".tsv", ".jsonl"):
        return _manifest_splits(path, suffix)
    if path.exists():
        raise DataError(f"{source!r} is no folder, Parquet file or manifest (.csv, .tsv, .jsonl)")
    hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source)
    # `data/typo` beside an existing data/ is a mistyped path; asking the hub for it takes long.
    beside = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    if suffix in (".csv", ".tsv", ".jsonl", ".parquet") or beside or not hub_name:
        raise DataError(f"{source!r} does not exist")
    try:
        hub = load_from_hub(source)
    except Exception as error:  # the hub's client, HTTP, the cache and the builders all have their own
        raise DataError(f"{source!r} does not exist here, nor can the hub serve it: {error}") from error
    return {key: _Split(f"{source} {key}", Path(), partial(hub.get, key)) for key in hub}


def load_from_hub(source: str, **options: Any) -> Any:
    """``datasets.load_dataset`` of ``owner/name:config``, with its options."""
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        return load_dataset(name, config or None, **options)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # What the hub itself has made of sets that come as code, such as google/speech_commands.
        return load_dataset(name, config or None, revision="refs/convert/parquet", **options)


def _embedded(columns: Callable[[], Mapping[str, list[Any]]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns())


def _folder_splits(root: Path, extensions: tuple[str, ...], named: bool, content: str) -> dict[str, _Split]:
    endings = tuple(extension.lower() for extension in extensions)

    def walk(folder: Path | str) -> Iterator[str]:
        for entry in os.scandir(folder):
            if entry.is_dir() and entry.name[0] != ".":
                yield from walk(entry.path)
            elif entry.name[0] != "." and entry.name.lower().endswith(endings):
                yield entry.path

    def load(folder: Path) -> Any:
        from datasets import Dataset

        files = sorted(os.path.relpath(file, folder) for file in walk(folder))
        if not files:
            raise DataError(f"there is no file with extension {', '.join(endings)} under '{folder}'")
        labels = [file.split(os.sep)[0] if os.sep in file else None for file in files]
        return Dataset.from_dict({content: files, "label": labels})

    below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    guessed = "train" in below and (len(below) == 1 or any(name in below for name in _TEST_SPLITS))
    folders = {name: root / name for name in below} if named or guessed else {"train": root}
    return {name: _Split(str(at), at, partial(load, at)) for name, at in folders.items()}


def _manifest_splits(path: Path, suffix: str) -> dict[str, _Split]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if suffix == ".jsonl":
                rows = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    splits: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or None in row:  # DictReader puts surplus cells under None
            raise DataError(f"cannot read {str(path)!r}: row {number} (from 0) does not fit the columns")
        splits.setdefault(str(row.get("split") or "train"), []).append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def load(part: list[dict[str, Any]]) -> Any:
        from datasets import Dataset

        cells = {name: [row.get(name) for row in part] for name in columns}
        return Dataset.from_dict(
            {k: [None if v in (None, "") else str(v) for v in vs] for k, vs in cells.items()}
        )

    if not rows:
        raise DataError(f"{str(path)!r} has no records")
    origin = {name: path.name if len(splits) == 1 else f"{path.name} {name}" for name in splits}
    return {name: _Split(origin[name], path.parent, partial(load, part)) for name, part in splits.items()}


def _parquet_splits(files: list[Path], named: bool) -> dict[str, _Split]:
    """By the split in the file names; all are train where no name says one."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        stem = re.sub(r"-\d+-of-\d+(-\w+)?$", "", file.stem)
        last = re.split(r"[-_.]", stem)[-1]
        splits.setdefault(last if last in ("train", *_TEST_SPLITS) else stem, []).append(file)
    if not named and not {"train", *_TEST_SPLITS} & {*splits}:
        splits = {"train": files}
    origin = {
        name: at[0].name if len(at) == 1 else f"{at[0].parent.name}/{name}" for name, at in splits.items()
    }
    return {name: _Split(origin[name], at[0].parent, partial(_parquet, at)) for name, at in splits.items()}


def _parquet(files: list[Path]) -> Any:
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    try:
        if sum(file.stat().st_size for file in files) > _IN_MEMORY_BYTES:
            return Dataset.from_parquet([str(file) for file in files])
        return Dataset(pq.read_table(files, partitioning=None))
    except (OSError, ValueError, TypeError, RuntimeError, DatasetsError) as error:
        raise DataError(f"cannot read {str(files[0])!r}: {error}") from error
