"""The samples of a run whose source is opened whole; `streamed_samples` has the same members for a stream."""

from torch.utils.data import DataLoader

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.batches import TwinDataset, check_batch_size, training_loader
from bt_multimodal.data.damage import USUAL, Tolerance
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.progress import working
from bt_multimodal.data.records import Splits
from bt_multimodal.data.splitting import hold_out
from bt_multimodal.views import Views


class WholeSamples:
    """A source that is opened whole: any record can be read at any time.

    Args:
        splits: the training and test records.
        augmentations: the augmentation set; it learns from the training records (`AugmentationSet.learn`).
        seed: the run's seed.
        batch_size: the global batch, over all ranks.
        validation: share of the labelled training records to hold out for validation, from 0 to 1.
        cache: decode once and keep everything in memory.
        tolerance: how much damage is no error.

    Attributes:
        train_full: all training records.
        train, validation: the two parts of ``train_full``.
        test: the test records.
        test_is_held_out: whether the test records were drawn from the training records.
        steps: batches per epoch.

    Raises:
        DataError: a batch size that does not work with the number of records, or too many damaged ones.
    """

    def __init__(
        self,
        splits: Splits,
        augmentations: AugmentationSet,
        seed: int,
        batch_size: int,
        validation: float,
        cache: bool,
        tolerance: Tolerance = USUAL,
    ):
        rest, held_out = hold_out(splits.train.labels, validation, seed)
        check_batch_size(batch_size, len(rest))  # before any slow work
        with working("learning from the training records"):
            augmentations.learn(splits.train.contents())
        self.train_full, self.test = (
            DecodedRecords(records, augmentations.decode, cache, **tolerance._asdict())
            for records in (splits.train, splits.test)
        )
        self.test_is_held_out = splits.held_out
        self.train, self.validation = self.train_full.subset(rest), self.train_full.subset(held_out)
        self.batch_size, self.steps = batch_size, len(rest) // batch_size
        self._dataset = TwinDataset(self.train, augmentations, seed)

    def loader(
        self, rank: int, world: int, start: tuple[int, int], num_workers: int, pin_memory: bool
    ) -> DataLoader:
        """The batches of one rank, from ``start`` (epoch, batches done) on; see `training_loader`."""
        return training_loader(self._dataset, self.batch_size, rank, world, num_workers, pin_memory, start)

    def first_batch(self) -> Views:
        """The first global batch, computed in this process."""
        return next(iter(training_loader(self._dataset, self.batch_size)))
