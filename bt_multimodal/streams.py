"""Sources too large for a disk: records arrive in order, a part at a time, and are trained on as they do.

A chunk of records at a time is held undecoded in memory, shuffled, and cut into batches as if it
were the whole source: the policy for damaged records and the views are those of `TwinDataset`.
"""

import copy
import dataclasses
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bt_multimodal.data import GlobalBatches, TwinDataset, as_is
from bt_multimodal.decoding import DecodedRecords
from bt_multimodal.records import DataError, Records, find_column, load_from_hub, unwrap
from bt_multimodal.views import AugmentationSet, Views

CHUNK = 2048  # records at a time


class Stream:
    """The training records of a source, in chunks.

    Args:
        source: a hub dataset ``owner/name`` or ``name``, and ``:config`` if it has several, or a
            folder of Parquet files (the more files, the more workers and ranks can share them).
        content_columns: looked for in that order when ``content_column`` is not given.
        split: the hub's name of it; of files, what stands in their names.

    Raises:
        DataError: what is wrong with the source, in one line.
    """

    def __init__(
        self,
        source: str,
        content_columns: tuple[str, ...],
        content_column: str | None = None,
        split: str = "train",
    ):
        from datasets import load_dataset

        self.source, self.split = source, split
        path = Path(source).expanduser()
        self._root = path if path.is_dir() else Path()
        try:
            if path.is_dir():
                files = [str(file) for file in sorted(path.rglob("[!.]*.parquet"))]
                named = [file for file in files if split in Path(file).stem]
                if not files:
                    raise DataError(f"{source!r} has no Parquet file to stream")
                rows = load_dataset("parquet", data_files=named or files, split="train", streaming=True)
            else:
                rows = load_from_hub(source, split=split, streaming=True)
            features = rows.features or {}
        except DataError:
            raise
        except Exception as error:  # the hub's client, HTTP, the cache and the builders all have their own
            raise DataError(f"cannot stream {source!r}: {error}") from error
        self._content = find_column("content", content_column, content_columns, list(features), source)
        kind = features[self._content]
        if hasattr(kind, "decode"):  # Audio, Image: bytes are wanted
            rows = rows.cast_column(self._content, dataclasses.replace(kind, decode=False))
        self._rows = rows.select_columns([self._content])

    def chunks(self, seed: int, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Records]:
        """This rank's (and this loader worker's) part of one pass, `CHUNK` records at a time.

        The order of the files depends on (seed, epoch).
        """
        from datasets.distributed import split_dataset_by_node

        rows = self._rows.shuffle(seed=seed, buffer_size=1, max_buffer_input_shards=1)
        rows.set_epoch(epoch)
        items = iter(split_dataset_by_node(rows, rank, world) if world > 1 else rows)
        while part := list(islice(items, CHUNK)):
            yield self._records([item[self._content] for item in part])

    def _records(self, contents: list[Any]) -> Records:
        from datasets import Dataset

        n = len(contents)
        table = Dataset.from_dict({"content": [_held(content) for content in contents]}).with_format("arrow")
        none = torch.full((n,), -1)
        return Records(table, torch.arange(n), none, [], self._root, f"{self.source} {self.split} chunk")


def _held(content: Any) -> Any:
    """Contents, or a path; files that lie elsewhere are fetched."""
    content = unwrap(content)
    if isinstance(content, str) and "://" in content:
        import fsspec

        try:
            with fsspec.open(content, "rb") as file:
                return file.read()
        except OSError:
            return None  # a damaged record
    return content


class TwinStream(IterableDataset):
    """Batches of twin views of a stream: `Views` of `Drawn`.

    Every view depends on (seed, epoch, rank, worker, place in its part of the stream), so other
    numbers of workers or ranks give other views.

    Args:
        stream: where records come from; it begins anew when it ends before the epoch does.
        augmentations: see `bt_multimodal.views`.
        seed: the run's seed.
        batch_size: of one rank.
        steps: batches an epoch.
        epoch: the first epoch.
        rank, world: this rank and how many there are.
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
    ):
        self.stream, self.augmentations, self.seed = stream, augmentations, seed
        self.batch_size, self.steps, self.epoch = batch_size, steps, epoch
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[Views]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        left = len(range(worker, self.steps, workers))
        serial = 0
        while left:
            before = left
            # A second pass within an epoch takes the files in another order.
            for records in self.stream.chunks(self.seed, self.epoch + 1000 * serial, self.rank, self.world):
                if len(records) < self.batch_size:
                    continue
                part = ((self.epoch * self.world + self.rank) * workers + worker) * 4096 + serial
                serial += 1
                dataset = TwinDataset(
                    DecodedRecords(records, self.augmentations.decode), self.augmentations, self.seed
                )
                batches = GlobalBatches(len(records), self.batch_size, self.seed)
                batches.set_epoch(part)
                for keys in islice(batches, left):
                    yield dataset.__getitems__(keys)
                    left -= 1
                if not left:
                    return
            if left == before:
                raise DataError(
                    f"a part of {self.stream.source!r} has fewer than a batch of {self.batch_size} records: "
                    "use fewer workers, a smaller batch or more files"
                )


class StreamLoader:
    """A loader whose every pass is the next epoch.

    Args:
        dataset: what to load; its ``epoch`` counts up.
        num_workers: loader processes; more than there are files are of no use.
    """

    def __init__(self, dataset: TwinStream, num_workers: int = 0, pin_memory: bool = False):
        self.dataset = dataset
        self._options: dict[str, Any] = {
            "batch_size": None, "collate_fn": as_is, "num_workers": num_workers, "pin_memory": pin_memory,
        }  # fmt: skip

    def __len__(self) -> int:
        return self.dataset.steps

    def __iter__(self) -> Iterator[Views]:
        dataset = copy.copy(self.dataset)
        self.dataset.epoch += 1  # now: a pass may be left before its end
        yield from DataLoader(dataset, **self._options)
