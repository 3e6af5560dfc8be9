"""Records of one source as Lightning sees them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from bt_multimodal.data.batches import GlobalBatches, TwinDataset, place, training_loader
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import Records, open_source, stratified_split
from bt_multimodal.data.streams import Stream, StreamLoader, TwinStream
from bt_multimodal.modality import Modality
from bt_multimodal.views import AugmentationSet


class TwinData(pl.LightningDataModule):
    """Twin views of the training split, and records for probing.

    Args:
        views: the augmentation set.
        modality: how to open the source.
        seed: the run's seed.
        source: a folder, a manifest (CSV, TSV, JSONL), Parquet, a hub data set's name, or an
            embedded set such as ``sklearn:digits``; or several of them, taken together.
        batch_size: the global batch, over all ranks.
        content_column, label_column: columns of a table; found by convention.
        train_split, test_split: names of the splits; found by convention.
        validation: share of the training split kept out of training, for choices and the online
            probe.
        cache: decode once and keep everything in memory.
        num_workers: loader processes.
        stream: how many records are called an epoch; the source, a hub data set, or a Parquet or tar
            file (WebDataset) or a folder of them, is then read as it is trained on rather than opened
            whole, without labels, validation or test (`bt_multimodal.data.streams`).
    """

    def __init__(
        self,
        views: AugmentationSet,
        modality: Modality,
        seed: int,
        source: str | list[str],
        batch_size: int = 256,
        content_column: str | None = None,
        label_column: str | None = None,
        train_split: str | None = None,
        test_split: str | None = None,
        validation: float = 0.1,
        cache: bool = False,
        num_workers: int = 0,
        stream: int | None = None,
    ):
        super().__init__()
        if not 0 <= validation < 1:
            raise ValueError(f"validation is a share in [0, 1), not {validation}")
        self.views, self.modality, self.seed = views, modality, seed
        self.batch_size, self.num_workers = batch_size, num_workers
        if stream is not None:
            if not 2 <= batch_size <= stream:
                raise ValueError(f"batch_size {batch_size} does not work with {stream} records an epoch")
            if not isinstance(source, str):
                raise ValueError("a stream has one source; a folder may hold several files of it")
            self._stream: Stream | None = Stream(
                source, modality.columns, content_column, train_split or "train", modality.extensions,
                modality.inline,
            )  # fmt: skip
            self._steps = stream // batch_size
            # The first records are there to measure and try on; nothing is held out of a stream.
            first = self._stream.first(seed)
            _learn(views, first)
            self.train = self.train_full = DecodedRecords(first, views.decode)
            self.validation = self.test = self.train.subset([])
            self.test_is_held_out = False
            return
        self._stream = None
        splits = open_source(
            source,
            modality,
            content_column=content_column,
            label_column=label_column,
            train_split=train_split,
            test_split=test_split,
        )
        keep, held_out = (
            stratified_split(splits.train.labels, validation, seed)
            if validation
            else (torch.arange(len(splits.train)), torch.empty(0, dtype=torch.int64))
        )
        GlobalBatches(len(keep), batch_size, seed)  # refuses a batch that does not fit, before long work
        _learn(views, splits.train)
        self.train_full = DecodedRecords(splits.train, views.decode, cache)
        self.test = DecodedRecords(splits.test, views.decode, cache)
        self.test_is_held_out = splits.held_out
        self.train, self.validation = self.train_full.subset(keep), self.train_full.subset(held_out)
        self.dataset = TwinDataset(self.train, views, seed)

    @property
    def labelled(self) -> bool:
        """Whether there is anything to probe: every record has a label, of two classes or more."""
        return len(self.train_full.classes) > 1 and bool(
            (self.train_full.labels >= 0).all() and (self.test.labels >= 0).all()
        )

    def train_dataloader(self) -> DataLoader | StreamLoader:
        pin_memory = torch.cuda.is_available()
        if self._stream is None:
            rank, world, start = place(self.trainer, len(self.dataset) // self.batch_size)
            return training_loader(
                self.dataset, self.batch_size, rank, world, self.num_workers, pin_memory, start
            )
        rank, world, (epoch, done) = place(self.trainer, self._steps)
        own = len(range(rank, self.batch_size, world))
        dataset = TwinStream(
            self._stream, self.views, self.seed, own, self._steps, epoch, rank, world, start=done
        )
        return StreamLoader(dataset, self.num_workers, pin_memory)


def _learn(views: AugmentationSet, records: Records) -> None:
    def contents() -> Iterator[Any]:
        for i in range(len(records)):
            with suppress(OSError):  # named and counted when it is decoded
                yield records.raw(i)

    if hasattr(views, "learn"):
        views.learn(contents())
