"""Training on sources too large for a disk: records are read in order, one chunk at a time.

A chunk of undecoded records is held in memory, shuffled and cut into batches; its remainder goes into
the next chunk. Damaged records and views are handled as in `TwinDataset`.
"""

import copy
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.batches import TwinDataset, as_is, shuffled
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.damage import USUAL, Tolerance
from bt_multimodal.data.decoding import DecodedRecords, Tally
from bt_multimodal.data.loader_processes import Loader
from bt_multimodal.data.records import Part, Records
from bt_multimodal.data.sources.hub import unreachable
from bt_multimodal.data.sources.stream_files import hub_files, local_files
from bt_multimodal.data.sources.tables import SourceOptions, as_content, nowhere, within
from bt_multimodal.data.sources.tars import Stretch
from bt_multimodal.modality import Modality
from bt_multimodal.views import Views

CHUNK = 2048  # records at a time
_LARGEST = 2**28  # bytes to fetch for one record at most
Locate = Callable[[str], Path | Stretch | bytes]
_SERVED, _PACKED = re.compile(r"(https?|hf)://"), re.compile(r"(zip|tar|gzip|bz2|xz|zstd|lz4)://")


class Row(NamedTuple):
    """A record as read from its file: its name in messages, and its content or the location of that."""

    name: str
    cell: Any


class Stream:
    """The training records of a source, row by row.

    Args:
        source: a hub dataset ``owner/name`` or ``name``, and ``:config`` if it has several, or a
            Parquet or tar file (WebDataset) or a folder of them.
        content_columns: tried in order if ``content_column`` is not given.
        content_column: the column of contents.
        split: the split's name on the hub; for files, the name in their names (`tables.split_files`) or,
            for inline rows in files without one, in the column ``split``.
        extensions: tried in order for the members of a sample in a tar file (``(".jpg", ".png")``).
        inline: strings in cells are contents, column names may be compound and text files of rows are
            sources, as in `open_records`; the records of a row of ``"a,b"`` follow each other.

    Attributes:
        files: the number of files.

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
        inline: bool = False,
    ):
        self.source, self.split = source, split
        options = SourceOptions(extensions, content_column, content_columns, None, split != "train", inline)
        path = Path(source).expanduser()
        within_folder = partial(within, path if path.is_dir() else path.parent)
        self._locate: Locate = (
            as_content if inline else partial(_fetched, within_folder if path.exists() else nowhere)
        )
        try:
            self._files = (
                local_files(path, split, options) if path.exists() else hub_files(source, split, options)
            )
        except (DataError, ModuleNotFoundError):
            raise
        except Exception as error:  # the hub's client, HTTP, the cache and the builders raise their own
            raise DataError(f"cannot stream {source!r}: {unreachable(error)}") from error
        self.files = len(self._files)

    def rows(self, seed: int, epoch: int, part: int = 0, parts: int = 1) -> Iterator[Row]:
        """Rows of part ``part`` of ``parts``; each record is in exactly one part.

        The order of the files depends on (seed, epoch).

        Raises:
            DataError: a file cannot be read.
        """
        for file, first, step in _share(shuffled(self.files, seed, epoch).tolist(), part, parts):
            name, read = self._files[file]
            try:
                for i, cells in islice(enumerate(read()), first, None, step):
                    for cell in cells:
                        yield Row(f"{name} row {i}", cell.read_bytes() if isinstance(cell, Stretch) else cell)
            except DataError:
                raise
            except Exception as error:  # as above
                raise DataError(f"cannot read {name}: {type(error).__name__}: {error}") from error

    def records(self, rows: Sequence[Row]) -> Records:
        """``rows`` as records without labels."""
        return _NamedRecords(rows, self._locate)

    def first(self, seed: int) -> Records:
        """The first records of the first pass, up to `CHUNK`.

        Raises:
            DataError: the stream is empty.
        """
        rows = list(islice(self.rows(seed, 0), CHUNK))
        if not rows:
            raise DataError(f"{self.source!r} has no records")
        return self.records(rows)


class _NamedRecords(Records):
    """Records in memory, each with its own name."""

    def __init__(self, rows: Sequence[Row], locate: Locate):
        n = len(rows)
        part = Part([row.cell for row in rows], locate, "")
        super().__init__([part], torch.arange(n), torch.full((n,), -1), [])
        self._names = [row.name for row in rows]

    def name(self, i: int) -> str:
        return self._names[int(self._rows[i])]


def _fetched(locate: Callable[[str], Path | Stretch], path: str) -> Path | Stretch | bytes:
    """The content at a URL, or the location of a path in the local folder."""
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


def _share(files: list[int], part: int, parts: int) -> list[tuple[int, int, int]]:
    """The files that a part reads, as ``(file, first, step)``: every ``step``-th record from ``first``.

    Every part gets the same number of whole files; the remaining files are shared by as few parts as
    possible.
    """
    whole = len(files) // parts * parts
    remaining = files[whole:]
    groups = math.gcd(len(remaining), parts)
    shared = [(file, part // groups, parts // groups) for file in remaining[part % groups :: groups]]
    return [(file, 0, 1) for file in files[part:whole:parts]] + shared


def open_stream(
    source: str, modality: Modality, content_column: str | None = None, split: str | None = None
) -> Stream:
    """The training records of a source of one modality, read row by row.

    Args:
        source, content_column: as in `Stream`.
        modality: provides the other arguments of `Stream`.
        split: the split's name, ``"train"`` by default.

    Raises:
        DataError: as in `Stream`.
    """
    return Stream(
        source, modality.columns, content_column, split or "train", modality.extensions, modality.inline
    )


class TwinStream(IterableDataset):
    """Batches of twin views of a stream: `Views` of `Drawn`.

    Each loader process of each rank reads its own part of the stream. In a pass, each record of that
    part is in one batch, except those that do not fill the last batch. A view depends on (seed, epoch,
    rank, worker, place in the part), so another number of workers or ranks produces other views.

    Args:
        stream: the records; it starts again if it ends before the epoch does.
        augmentations: see `bt_multimodal.views`.
        seed: the run's seed.
        batch_size: batch size of one rank.
        steps: batches per epoch.
        epoch: the first epoch.
        rank, world: this rank and the number of ranks.
        start: batches of the first epoch to skip; their records are read but not decoded.
        tolerance: how much damage is no error.

    Raises:
        ValueError: ``start`` is out of range.
        DataError: while iterating, a part of the stream has fewer records than a batch.
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
        tolerance: Tolerance = USUAL,
    ):
        if not 0 <= start <= steps:
            raise ValueError(f"start must be a number of batches from 0 to {steps}, not {start}")
        self.stream, self.augmentations, self.seed = stream, augmentations, seed
        self.batch_size, self.steps, self.epoch, self.start = batch_size, steps, epoch, start
        self.rank, self.world, self.tolerance = rank, world, tolerance

    def __iter__(self) -> Iterator[Views]:
        info = get_worker_info()
        workers = info.num_workers if info else 1
        # A loader asks its workers in turn, starting with the first: that one continues at batch ``start``.
        worker = ((info.id if info else 0) + self.start) % workers
        done, whole = (len(range(worker, end, workers)) for end in (self.start, self.steps))
        if done < whole:
            for dataset, keys in islice(self._batches(worker, workers), done, whole):
                yield dataset.__getitems__(keys)

    def _batches(self, worker: int, workers: int) -> Iterator[tuple[TwinDataset, list[tuple[int, int]]]]:
        """The batches of this part of the stream, endlessly; nothing is decoded yet."""
        part, parts = self.rank * workers + worker, self.world * workers
        tally, chunks, passes = Tally(), 0, 0
        while True:
            # A second pass within an epoch reads the files in another order.
            rows = self.stream.rows(self.seed, self.epoch + 1000 * passes, part, parts)
            chunk: list[Row] = []
            passes, chunks_before = passes + 1, chunks
            while new := list(islice(rows, CHUNK)):
                chunk += new
                if len(chunk) < self.batch_size:
                    continue
                records = DecodedRecords(
                    self.stream.records(chunk), self.augmentations.decode, tally=tally,
                    **self.tolerance._asdict(),
                )  # fmt: skip
                dataset = TwinDataset(records, self.augmentations, self.seed)
                key = (self.epoch * parts + part) * 4096 + chunks
                order = shuffled(len(chunk), self.seed, key).tolist()
                end = len(chunk) - len(chunk) % self.batch_size
                for start in range(0, end, self.batch_size):
                    yield dataset, [(key, i) for i in order[start : start + self.batch_size]]
                chunk = [chunk[i] for i in order[end:]]
                chunks += 1
            if chunks == chunks_before:
                raise DataError(
                    f"a part of {self.stream.source!r} has fewer than a batch of {self.batch_size} records: "
                    "use fewer workers or a smaller batch"
                )


class StreamLoader:
    """A loader that moves on to the next epoch with each pass; only the first uses the dataset's ``start``.

    Args:
        dataset: the data set; its ``epoch`` counts up.
        num_workers: the number of loader processes.
        pin_memory: as in `torch.utils.data.DataLoader`.

    Warns:
        UserWarning: there are fewer files than loader processes, so files are read more than once.
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
                f"{max(1, num_workers)} loader process(es) each: every file is read {times} times",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return self.dataset.steps

    def __iter__(self) -> Iterator[Views]:
        dataset = copy.copy(self.dataset)
        # Before the pass, which may be left before its end.
        self.dataset.epoch, self.dataset.start = self.dataset.epoch + 1, 0
        # Its own: each pass would draw from the global one, and a continued run has fewer passes.
        generator = torch.Generator().manual_seed(dataset.seed)
        yield from Loader(dataset, generator=generator, **self._options)
