"""Batches of twin views: how one is made from decoded records, and in which order the samples come."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bt_multimodal.augmentation_set import AugmentationSet, completed
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.views import Views, collate_views, draw_parameters, draw_views, record_parameters


class TwinDataset(Dataset):
    """Both views of any sample at any epoch, as far as a worker makes them.

    It is asked for whole batches of ``(epoch, index)`` pairs and returns `Views` of `Drawn`.

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
        made, label = self.records.read(
            index, lambda file, k: [read(file, of_view) for of_view in per_sample[k]]
        )
        return collate_views(self.augmentations, parameters, made, label)

    def __getitem__(self, key: tuple[int, int]) -> Views:
        return self.__getitems__([key])


def shuffled(n: int, seed: int, of: int) -> Tensor:
    """``0 .. n - 1`` in an order that depends on (seed, of) alone, such as a run's seed and an epoch."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + of))


def check_batch_size(batch_size: int, n: int, world: int = 1) -> None:
    """Refuse a global batch larger than the ``n`` samples, or smaller than 2 or the number of ranks.

    Raises:
        DataError: which sizes work.
    """
    if not max(2, world) <= batch_size <= n:
        raise DataError(
            f"batch_size {batch_size} does not work with {n} training samples and {world} rank(s): "
            f"choose one from {max(2, world)} to {n}"
        )


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """This rank's part of every global batch, as ``(epoch, index)`` pairs.

    The order depends on (seed, epoch) alone, so the global batches are the same for any number of
    ranks. The incomplete last batch is left out.

    Args:
        n: samples in the data set.
        batch_size: the global batch size.
        seed: the run's seed.
        rank, world: this rank and how many there are.
        start: the first epoch, and how many of its batches are left out: those of a run that is
            continued.

    Raises:
        DataError: a batch larger than the data, or smaller than the ranks.
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
        """Where Lightning looks for `set_epoch`."""
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
    """Samples asked for by ``(epoch, index)`` pairs, and the run's seed."""

    seed: int

    def __len__(self) -> int: ...
    def __getitem__(self, key: tuple[int, int], /) -> Any: ...


def training_loader(
    dataset: SeededDataset, batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0,
    pin_memory: bool = False, start: tuple[int, int] = (0, 0),
) -> DataLoader:  # fmt: skip
    """A loader of this rank's batches; call ``loader.batch_sampler.set_epoch`` each epoch.

    Arguments as in `GlobalBatches`.
    """
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=GlobalBatches(len(dataset), batch_size, dataset.seed, rank, world, start),
        collate_fn=as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(dataset.seed),  # or each pass draws from the global one
    )
