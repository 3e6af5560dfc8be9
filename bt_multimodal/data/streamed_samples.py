"""The samples of a run whose source is read while it is trained on; `whole_samples` has the same members."""

from collections.abc import Iterable
from typing import Any

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.damage import USUAL, Tolerance
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.streams import Stream, StreamLoader, TwinStream
from bt_multimodal.views import Views


class StreamedSamples:
    """A source that is read during training: no labels, no validation and no test records.

    Args:
        stream: the source.
        augmentations: the augmentation set; it learns from the stream's first records.
        seed: the run's seed.
        batch_size: the global batch, over all ranks.
        records: the number of records that count as an epoch.
        tolerance: how much damage is no error.

    Attributes: as in `WholeSamples`; the training records are only the first of the stream.

    Raises:
        DataError: a batch larger than an epoch or smaller than 2, or an empty stream.
    """

    def __init__(
        self, stream: Stream, augmentations: AugmentationSet, seed: int, batch_size: int, records: int,
        tolerance: Tolerance = USUAL,
    ):  # fmt: skip
        if not 2 <= batch_size <= records:
            raise DataError(
                f"batch_size {batch_size} does not work with {records} records per epoch: "
                f"choose one from 2 to {records}"
            )
        first = stream.first(seed)
        augmentations.learn(first.contents())
        self.train = self.train_full = DecodedRecords(first, augmentations.decode, **tolerance._asdict())
        self.validation = self.test = self.train.subset([])
        self.test_is_held_out = False
        self.batch_size, self.steps = batch_size, records // batch_size
        self._stream, self._augmentations, self._seed = stream, augmentations, seed
        self._tolerance = tolerance

    def loader(
        self, rank: int, world: int, start: tuple[int, int], num_workers: int, pin_memory: bool
    ) -> StreamLoader:
        """The batches of one rank, from ``start`` (epoch, batches done) on; see `StreamLoader`."""
        epoch, done = start
        local_size = len(range(rank, self.batch_size, world))
        dataset = TwinStream(
            self._stream, self._augmentations, self._seed, local_size, self.steps, epoch, rank, world, done,
            self._tolerance,
        )  # fmt: skip
        return StreamLoader(dataset, num_workers, pin_memory)

    def first_batch(self) -> Views:
        """The first global batch, computed in this process."""
        batches: Iterable[Any] = TwinStream(
            self._stream, self._augmentations, self._seed, self.batch_size, self.steps,
            tolerance=self._tolerance,
        )  # fmt: skip
        return next(iter(batches))
