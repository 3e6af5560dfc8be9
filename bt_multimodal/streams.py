"""Sources too large for a disk: records arrive in order, a part at a time, and are trained on as they do.

A chunk of records at a time is held undecoded in memory, shuffled, and cut into batches; what is left
of it goes into the next. The policy for damaged records and the views are those of `TwinDataset`.
"""

import copy
import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bt_multimodal import tars
from bt_multimodal.data import TwinDataset, as_is, shuffled
from bt_multimodal.decoding import DecodedRecords, Tally
from bt_multimodal.records import DataError, Records, find_column
from bt_multimodal.tables import check_hub_name, load_from_hub, nowhere, split_files, there_are, within
from bt_multimodal.tars import Stretch
from bt_multimodal.views import AugmentationSet, Views

CHUNK = 2048  # records at a time
_READ = 64  # rows at a time
_LARGEST = 2**28  # bytes that are fetched for a record
_SERVED, _PACKED = re.compile(r"(https?|hf)://"), re.compile(r"(zip|tar|gzip|bz2|xz|zstd|lz4)://")


class Row(NamedTuple):
    """A record as it is in its file: how to name it, and its content or where that is."""

    name: str
    cell: Any


class Stream:
    """The training records of a source, row by row.

    Args:
        source: a hub dataset ``owner/name`` or ``name``, and ``:config`` if it has several, or a
            Parquet or tar file (WebDataset) or a folder of them.
        content_columns: looked for in that order when ``content_column`` is not given.
        split: the hub's name of it; of files, what stands in their names (`tables.split_files`).
        extensions: likewise, of the members of a tar file's samples (``(".jpg", ".png")``).

    Attributes:
        files: how many files the records come in.

    Raises:
        DataError: what is wrong with the source, in one line.
    """

    def __init__(
        self,
        source: str,
        content_columns: tuple[str, ...],
        content_column: str | None = None,
        split: str = "train",
        extensions: tuple[str, ...] = (),
    ):
        self.source, self.split = source, split
        members = tuple(extension.lstrip(".").lower() for extension in extensions)
        path = Path(source).expanduser()
        self._locate: Callable[[str], Path | Stretch] = nowhere
        self._files: list[tuple[str, Callable[[], Iterator[Any]]]]  # the name of each, and how to read it
        try:
            if path.exists():
                self._locate = partial(within, path if path.is_dir() else path.parent)
                self._files = _local_files(path, split, content_column, content_columns, members)
            else:
                check_hub_name(source)
                known = (*content_columns, *members)
                self._files = _hub_files(source, split, content_column, known)
        except DataError:
            raise
        except Exception as error:  # the hub's client, HTTP, the cache and the builders all have their own
            raise DataError(f"cannot stream {source!r}: {error}") from error
        self.files = len(self._files)

    def rows(self, seed: int, epoch: int, part: int = 0, parts: int = 1) -> Iterator[Row]:
        """One of ``parts`` parts of a pass; every record is in exactly one of them.

        The order of the files depends on (seed, epoch).

        Raises:
            DataError: a file that cannot be read.
        """
        for file, first, step in _share(shuffled(self.files, seed, epoch).tolist(), part, parts):
            name, read = self._files[file]
            try:
                for i, cell in islice(enumerate(read()), first, None, step):
                    yield Row(f"{name} row {i}", cell.read_bytes() if isinstance(cell, Stretch) else cell)
            except Exception as error:  # as above
                raise DataError(f"cannot read {name}: {type(error).__name__}: {error}") from error

    def records(self, rows: Sequence[Row]) -> Records:
        """Rows as records without labels."""
        return _Held(rows, self._locate)

    def first(self, seed: int) -> Records:
        """The first records of the first pass, to measure and try on.

        Raises:
            DataError: there are none.
        """
        rows = list(islice(self.rows(seed, 0), CHUNK))
        if not rows:
            raise DataError(f"{self.source!r} has no records")
        return self.records(rows)


class _Held(Records):
    """Records in memory, each under the name it came with."""

    def __init__(self, rows: Sequence[Row], locate: Callable[[str], Path | Stretch]):
        n = len(rows)
        super().__init__(rows, torch.arange(n), torch.full((n,), -1), [], partial(_fetched, locate), "")

    def name(self, i: int) -> str:
        return self._table[int(self._rows[i])].name

    def _cell(self, i: int) -> Any:
        return self._table[int(self._rows[i])].cell


def _fetched(locate: Callable[[str], Path | Stretch], path: str) -> Path | Stretch | bytes:
    """What is on another machine; a path within the folder."""
    if "://" not in path:
        return locate(path)
    *packed, served = path.split("::")  # as fsspec chains them
    if not (_SERVED.match(served) and all(map(_PACKED.match, packed))):
        return nowhere(path)
    import fsspec

    with fsspec.open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(f"more than {_LARGEST:,} bytes")
    return content


def _local_files(
    path: Path, split: str, column: str | None, columns: Sequence[str], members: Sequence[str]
) -> list[tuple[str, Callable[[], Iterator[Any]]]]:
    import pyarrow.parquet as pq

    kinds = (".parquet", ".tar")
    root, found = (path, sorted(path.rglob("*"))) if path.is_dir() else (path.parent, [path])
    hidden = [any(part[0] == "." for part in file.relative_to(root).parts) for file in found]
    shown = [file for file, no in zip(found, hidden, strict=True) if not no and file.is_file()]
    files = next(filter(None, ([f for f in shown if f.suffix.lower() == kind] for kind in kinds)), [])
    if not files:
        raise DataError(f"{str(path)!r} has no Parquet or tar file to stream")
    splits = split_files(files, root, named=split != "train")
    if len(splits) == 1 and split == "train":
        (files,) = splits.values()
    elif split in splits:
        files = splits[split]
    else:
        raise DataError(f"{str(path)!r} has no split {split!r}; {there_are('splits', [split], list(splits))}")
    read: Callable[[Path], Iterator[Any]]
    if files[0].suffix.lower() == ".parquet":
        names = pq.read_schema(files[0]).names
        read = partial(_parquet_cells, find_column("content", column, columns, names, str(path)))
    else:
        wanted = (column,) if column else members
        there = dict.fromkeys(extension for sample in tars.samples(files[0]) for extension in sample)
        find_column("content", column, members, list(there), files[0].name)
        read = partial(_tar_cells, wanted)
    return [(str(file.relative_to(root)), partial(read, file)) for file in files]


def _parquet_cells(column: str, file: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(_READ, columns=[column]):
            yield from batch.column(0).to_pylist()


def _tar_cells(extensions: Sequence[str], file: Path) -> Iterator[Stretch | None]:
    for sample in tars.samples(file):
        yield tars.first(sample, extensions)


def _hub_files(
    source: str, split: str, column: str | None, known: Sequence[str]
) -> list[tuple[str, Callable[[], Iterator[Any]]]]:
    rows = load_from_hub(source, split=split, streaming=True)
    features = rows.features or {}
    column = find_column("content", column, known, list(features), source)
    kind = features[column]
    if hasattr(kind, "decode"):  # Audio, Image: bytes are wanted
        rows = rows.cast_column(column, dataclasses.replace(kind, decode=False))
    rows = rows.select_columns([column]).with_format("arrow")
    n = rows.num_shards
    return [(f"{source} {split} file {i}", partial(_hub_cells, rows.shard(n, i))) for i in range(n)]


def _hub_cells(rows: Any) -> Iterator[Any]:
    # Iterated over itself, in a loader's process it would take a share of its own.
    for table in rows.iter(_READ):
        yield from table.column(0).to_pylist()


def _share(files: list[int], part: int, parts: int) -> list[tuple[int, int, int]]:
    """The files of which a part reads every ``step``-th record from ``first``: ``(file, first, step)``.

    As many whole files as every part can have; those left over are read by as few parts as possible.
    """
    whole = len(files) // parts * parts
    left = files[whole:]
    groups = math.gcd(len(left), parts)
    shared = [(file, part // groups, parts // groups) for file in left[part % groups :: groups]]
    return [(file, 0, 1) for file in files[part:whole:parts]] + shared


class TwinStream(IterableDataset):
    """Batches of twin views of a stream: `Views` of `Drawn`.

    Every rank, and in it every loader process, reads a part of the stream of its own. In a pass each
    of its records is in one batch, but for those that do not fill the last. Every view depends on
    (seed, epoch, rank, worker, place in its part of the stream), so other numbers of workers or ranks
    give other views.

    Args:
        stream: where records come from; it begins anew when it ends before the epoch does.
        augmentations: see `bt_multimodal.views`.
        seed: the run's seed.
        batch_size: of one rank.
        steps: batches an epoch.
        epoch: the first epoch.
        rank, world: this rank and how many there are.
        start: batches of the first epoch to pass over; their records are read, but not decoded.
    """

    def __init__(
        self,
        stream: Stream,
        augmentations: AugmentationSet,
        seed: int,
        batch_size: int,
        steps: int,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ):
        if not 0 <= start <= steps:
            raise ValueError(f"start is a number of batches from 0 to {steps}, not {start}")
        self.stream, self.augmentations, self.seed = stream, augmentations, seed
        self.batch_size, self.steps, self.epoch, self.start = batch_size, steps, epoch, start
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[Views]:
        info = get_worker_info()
        workers = info.num_workers if info else 1
        # A loader takes its processes in turn from the first, so the one that is next comes first.
        worker = ((info.id if info else 0) + self.start) % workers
        done, whole = (len(range(worker, end, workers)) for end in (self.start, self.steps))
        if done < whole:
            for dataset, keys in islice(self._batches(worker, workers), done, whole):
                yield dataset.__getitems__(keys)

    def _batches(self, worker: int, workers: int) -> Iterator[tuple[TwinDataset, list[tuple[int, int]]]]:
        """This part's batches without end; nothing is decoded."""
        part, parts = self.rank * workers + worker, self.world * workers
        tally, chunks, again = Tally(), 0, 0
        while True:
            # A second pass within an epoch takes the files in another order.
            rows = self.stream.rows(self.seed, self.epoch + 1000 * again, part, parts)
            held: list[Row] = []
            again, before = again + 1, chunks
            while new := list(islice(rows, CHUNK)):
                held += new
                if len(held) < self.batch_size:
                    continue
                records = DecodedRecords(self.stream.records(held), self.augmentations.decode, tally=tally)
                dataset = TwinDataset(records, self.augmentations, self.seed)
                key = (self.epoch * parts + part) * 4096 + chunks
                order = shuffled(len(held), self.seed, key).tolist()
                cut = len(held) - len(held) % self.batch_size
                for at in range(0, cut, self.batch_size):
                    yield dataset, [(key, i) for i in order[at : at + self.batch_size]]
                held = [held[i] for i in order[cut:]]
                chunks += 1
            if chunks == before:
                raise DataError(
                    f"a part of {self.stream.source!r} has fewer than a batch of {self.batch_size} records: "
                    "use fewer workers or a smaller batch"
                )


class StreamLoader:
    """A loader whose every pass is the next epoch; only the first has the dataset's ``start``.

    Args:
        dataset: what to load; its ``epoch`` counts up.
        num_workers: loader processes.
    """

    def __init__(self, dataset: TwinStream, num_workers: int = 0, pin_memory: bool = False):
        self.dataset = dataset
        self._options: dict[str, Any] = {
            "batch_size": None, "collate_fn": as_is, "num_workers": num_workers, "pin_memory": pin_memory,
        }  # fmt: skip
        stream, parts = dataset.stream, dataset.world * max(1, num_workers)
        if stream.files < parts and dataset.rank == 0:
            times = parts // math.gcd(stream.files, parts)
            warnings.warn(
                f"{stream.source!r} has {stream.files} file(s) for {dataset.world} rank(s) with "
                f"{max(1, num_workers)} loader process(es) each: every file is read {times} times over",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return self.dataset.steps

    def __iter__(self) -> Iterator[Views]:
        dataset = copy.copy(self.dataset)
        # Now: a pass may be left before its end.
        self.dataset.epoch, self.dataset.start = self.dataset.epoch + 1, 0
        yield from DataLoader(dataset, **self._options)
