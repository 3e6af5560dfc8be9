"""Batches of twin views from raw records: decoding with one policy for damage, and the batch order."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bt_multimodal.records import DataError, Records
from bt_multimodal.views import AugmentationSet, Views, draw_views

_STRIDE = 7919  # a prime: the replacement of a damaged record is far from it, and always the same


class Modality(NamedTuple):
    """What the core has to be told of a modality to open and name its data."""

    name: str
    unit: str  # plural, for rates: "images"
    raw: str  # the trivial baseline: "raw pixels"
    extensions: tuple[str, ...]
    columns: tuple[str, ...]  # conventional names of the content column


class Decoder:
    """Decodes records; a damaged one is named in a warning, counted, and replaced by another.

    Args:
        records: raw records.
        decode: raw content to tensor; an exception means the record is damaged.
        allowed: the share of damaged records from which on it is an error.
    """

    def __init__(self, records: Records, decode: Callable[[Any], Tensor], allowed: float = 0.01):
        self.records, self.decode, self.allowed = records, decode, allowed
        self.damaged: set[int] = set()

    def __call__(self, index: int) -> tuple[Tensor, int]:
        """The decoded record and the index it really came from.

        Raises:
            DataError: more than the allowed share of the records turned out to be damaged.
        """
        while True:
            if index not in self.damaged:
                try:
                    return self.decode(self.records.raw(index)), index
                except (ValueError, OSError, SyntaxError) as error:
                    self._note(index, error)
            index = (index + _STRIDE) % len(self.records)

    def _note(self, index: int, error: Exception) -> None:
        self.damaged.add(index)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = f"damaged record {self.records.name(index)}: {reason}"
        if len(self.damaged) > self.allowed * len(self.records):
            raise DataError(
                f"{text} ({len(self.damaged)} of {len(self.records)} damaged so far, "
                f"over the allowed {self.allowed:.0%})"
            )
        warnings.warn(text, stacklevel=3)


class TwinDataset(Dataset):
    """Both views of any sample at any epoch, as far as a worker makes them.

    Asked for whole batches of ``(epoch, index)`` pairs; gives `Views` of `Drawn`.

    Args:
        records: raw records.
        augmentations: see `bt_multimodal.views`.
        seed: the run's seed; with epoch and index it fixes every view.
        cache: decode once and keep everything in memory as one tensor (small data; records must
            decode to one shape). ``on_record`` is not called then.
        allowed_damage: see `Decoder`.
    """

    def __init__(
        self,
        records: Records,
        augmentations: AugmentationSet,
        seed: int,
        cache: bool = False,
        allowed_damage: float = 0.01,
    ):
        self.augmentations, self.seed = augmentations, seed
        self.labels = records.labels
        self._decoder = Decoder(records, augmentations.decode, allowed_damage)
        self._cached: Tensor | None = None
        if cache:
            decoded, sources = zip(*(self._decoder(i) for i in range(len(records))), strict=True)
            shapes = {tuple(d.shape) for d in decoded}
            if len(shapes) > 1:
                raise DataError(f"cache needs records of one shape, found {sorted(shapes)[:3]}")
            self._cached, self.labels = torch.stack(decoded), records.labels[list(sources)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Views:
        epoch = keys[0][0]
        index = torch.tensor([i for _, i in keys])
        if self._cached is not None:
            decoded, label = self._cached[index], self.labels[index]
            return draw_views(self.augmentations, decoded, label, self.seed, epoch, index)
        pairs = [self._decoder(i) for i in index.tolist()]
        label = self.labels[[source for _, source in pairs]]
        return draw_views(self.augmentations, [d for d, _ in pairs], label, self.seed, epoch, index)

    def __getitem__(self, key: tuple[int, int]) -> Views:
        return self.__getitems__([key])


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """This rank's part of every global batch, as ``(epoch, index)`` pairs.

    The order depends on (seed, epoch) alone, so the global batches are the same for any number of
    ranks. The incomplete last batch is left out.

    Args:
        n: samples in the data set.
        batch_size: the global batch size.
        seed: the run's seed.
        rank, world: this rank and how many there are.

    Raises:
        DataError: a batch larger than the data, or smaller than the ranks.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        if not max(2, world) <= batch_size <= n:
            raise DataError(
                f"batch_size {batch_size} does not work with {n} training samples and {world} rank(s): "
                f"choose one from {max(2, world)} to {n}"
            )
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self.epoch = 0

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
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.n, generator=generator)
        epoch = self.epoch
        for batch in order[: len(self) * self.batch_size].view(-1, self.batch_size):
            yield [(epoch, i) for i in batch[self.rank :: self.world].tolist()]


def _as_is(batch: Any) -> Any:
    return batch


def twin_loader(
    dataset: TwinDataset, batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:  # fmt: skip
    """A loader of this rank's twin batches; call ``loader.batch_sampler.set_epoch`` each epoch."""
    return DataLoader(
        dataset,
        batch_sampler=GlobalBatches(len(dataset), batch_size, dataset.seed, rank, world),
        collate_fn=_as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )
