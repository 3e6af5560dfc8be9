"""The samples that a run trains on: a source opened whole, or streamed. Both have the same members."""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.batches import TwinDataset, check_batch_size, training_loader
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.records import DataError, Splits, stratified_split
from bt_multimodal.data.streams import Stream, StreamLoader, TwinStream
from bt_multimodal.views import Views


class WholeSamples:
    """A source that is opened whole: all of its records are known, and any can be read at any time.

    Args:
        splits: its training and test records.
        augmentations: the augmentation set; it learns from the training records (`AugmentationSet.learn`).
        seed: the run's seed.
        batch_size: the global batch, over all ranks.
        validation: share of the training records kept out of training.
        cache: decode once and keep everything in memory.

    Attributes:
        train_full: all training records.
        train, validation: the two parts of them.
        test: the test records.
        test_is_held_out: they were drawn from the training records.
        steps: batches an epoch.
    """

    def __init__(
        self,
        splits: Splits,
        augmentations: AugmentationSet,
        seed: int,
        batch_size: int,
        validation: float,
        cache: bool,
    ):
        rest, held_out = stratified_split(splits.train.labels, validation, seed)
        check_batch_size(batch_size, len(rest))  # before long work
        augmentations.learn(splits.train.contents())
        self.train_full = DecodedRecords(splits.train, augmentations.decode, cache)
        self.test = DecodedRecords(splits.test, augmentations.decode, cache)
        self.test_is_held_out = splits.held_out
        self.train, self.validation = self.train_full.subset(rest), self.train_full.subset(held_out)
        self.batch_size, self.steps = batch_size, len(rest) // batch_size
        self._dataset = TwinDataset(self.train, augmentations, seed)

    def loader(
        self, rank: int, world: int, start: tuple[int, int], num_workers: int, pin_memory: bool
    ) -> DataLoader:
        """The batches of one rank from ``start`` (epoch, batches done) on; see `training_loader`."""
        return training_loader(self._dataset, self.batch_size, rank, world, num_workers, pin_memory, start)

    def first_batch(self) -> Views:
        """The first global batch, made in this process."""
        return next(iter(training_loader(self._dataset, self.batch_size)))


class StreamedSamples:
    """A source that is read as it is trained on: without labels, validation or test records.

    Args:
        stream: the source.
        augmentations: the augmentation set; it learns from the stream's first records.
        seed: the run's seed.
        batch_size: the global batch, over all ranks.
        records: how many records are called an epoch.

    Attributes: as `WholeSamples`; the training records are the first of the stream, to measure and try on.
    """

    def __init__(
        self, stream: Stream, augmentations: AugmentationSet, seed: int, batch_size: int, records: int
    ):
        if not 2 <= batch_size <= records:
            raise DataError(f"batch_size {batch_size} does not work with {records} records an epoch")
        first = stream.first(seed)
        augmentations.learn(first.contents())
        self.train = self.train_full = DecodedRecords(first, augmentations.decode)
        self.validation = self.test = self.train.subset([])
        self.test_is_held_out = False
        self.batch_size, self.steps = batch_size, records // batch_size
        self._stream, self._augmentations, self._seed = stream, augmentations, seed

    def loader(
        self, rank: int, world: int, start: tuple[int, int], num_workers: int, pin_memory: bool
    ) -> StreamLoader:
        """The batches of one rank from ``start`` (epoch, batches done) on; see `StreamLoader`."""
        epoch, done = start
        of_rank = len(range(rank, self.batch_size, world))
        dataset = TwinStream(
            self._stream, self._augmentations, self._seed, of_rank, self.steps, epoch, rank, world, done
        )
        return StreamLoader(dataset, num_workers, pin_memory)

    def first_batch(self) -> Views:
        """The first global batch, made in this process."""
        batches: Iterable[Any] = TwinStream(
            self._stream, self._augmentations, self._seed, self.batch_size, self.steps
        )
        return next(iter(batches))
