"""Batches of twin views: making them from decoded records, and the order of the samples."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bt_multimodal.augmentation_set import AugmentationSet, completed
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.loader_processes import Loader
from bt_multimodal.views import Views, collate_views, draw_parameters, draw_views, record_parameters


class TwinDataset(Dataset):
    """Both views of any sample at any epoch, up to the steps that run on the device.

    Indexed by whole batches of ``(epoch, index)`` pairs; returns `Views` of `Drawn`.

    Args:
        records: decoded records.
        augmentations: the augmentation set.
        seed: the run's seed; with epoch and index it fixes every view.
    """

    def __init__(self, records: DecodedRecords, augmentations: AugmentationSet, seed: int):
        self.records, self.augmentations, self.seed = records, completed(augmentations), seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Views:
        epoch = keys[0][0]
        index = torch.tensor([i for _, i in keys])
        read = self.augmentations.read
        if read is None or self.records.cached:
            decoded, label = self.records.batch(index)
            return draw_views(self.augmentations, decoded, label, self.seed, epoch, index)
        parameters = draw_parameters(self.augmentations, self.seed, epoch, index)
        per_sample = record_parameters(self.augmentations, parameters, len(index))
        pairs, label = self.records.read(
            index, lambda file, k: [read(file, view_parameters) for view_parameters in per_sample[k]]
        )
        return collate_views(self.augmentations, parameters, pairs, label)

    def __getitem__(self, key: tuple[int, int]) -> Views:
        return self.__getitems__([key])


def shuffled(n: int, seed: int, key: int) -> Tensor:
    """A permutation of ``0 .. n - 1`` that depends only on (seed, key), such as (run's seed, epoch)."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + key))


def check_batch_size(batch_size: int, n: int, world: int = 1) -> None:
    """Check that a global batch has at most ``n`` samples, and at least 2 and one per rank.

    Raises:
        DataError: it does not; the message says which sizes work.
    """
    if not max(2, world) <= batch_size <= n:
        raise DataError(
            f"batch_size {batch_size} does not work with {n} training samples and {world} rank(s): "
            f"choose one from {max(2, world)} to {n}"
        )


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """This rank's part of every global batch, as ``(epoch, index)`` pairs.

    The order depends only on (seed, epoch), so the global batches are the same for any number of
    ranks. An incomplete last batch is dropped.

    Args:
        n: samples in the data set.
        batch_size: the global batch size.
        seed: the run's seed.
        rank, world: this rank and the number of ranks.
        start: the first epoch and the number of its batches to skip, when a run is continued.

    Raises:
        DataError: a batch that is larger than the data or has fewer samples than there are ranks.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: tuple[int, int] = (0, 0),
    ):
        check_batch_size(batch_size, n, world)
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self.epoch, self._start = start[0], start

    @property
    def sampler(self) -> "GlobalBatches":
        """Lightning calls `set_epoch` on this attribute."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = shuffled(self.n, self.seed, epoch)
        done = self._start[1] if epoch == self._start[0] else 0
        for batch in order[: len(self) * self.batch_size].view(-1, self.batch_size)[done:]:
            yield [(epoch, i) for i in batch[self.rank :: self.world].tolist()]


def as_is(batch: Any) -> Any:
    return batch


class SeededDataset(Protocol):
    """Samples indexed by ``(epoch, index)`` pairs, and the run's seed."""

    seed: int

    def __len__(self) -> int: ...
    def __getitem__(self, key: tuple[int, int], /) -> Any: ...


def training_loader(
    dataset: SeededDataset, batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0,
    pin_memory: bool = False, start: tuple[int, int] = (0, 0),
) -> DataLoader:  # fmt: skip
    """A loader of this rank's batches; call ``loader.batch_sampler.set_epoch`` before each epoch.

    See `GlobalBatches` for the arguments.
    """
    return Loader(
        dataset,
        batch_sampler=GlobalBatches(len(dataset), batch_size, dataset.seed, rank, world, start),
        collate_fn=as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(dataset.seed),  # by default it would use the global one
    )
