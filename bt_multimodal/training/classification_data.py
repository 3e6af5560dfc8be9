"""The data of a classification run, as Lightning sees them: one view to train on, clean ones to test on."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bt_multimodal.augmentation_set import AugmentationSet, completed
from bt_multimodal.data.batches import check_batch_size, training_loader
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.damage import tolerance
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.loader_processes import Loader
from bt_multimodal.data.records import Records, open_source
from bt_multimodal.data.sources.summary import summary
from bt_multimodal.data.splitting import stratified_split
from bt_multimodal.evaluation.probes import few_labels
from bt_multimodal.modality import Modality
from bt_multimodal.training.place import place
from bt_multimodal.training.restored import check_same_records
from bt_multimodal.views import LabelledView, draw_view


class OneViewDataset(Dataset):
    """The first view of any sample at any epoch; asked for batches of ``(epoch, index)`` pairs."""

    def __init__(self, records: DecodedRecords, augmentations: AugmentationSet, seed: int):
        self.records, self.augmentations, self.seed = records, augmentations, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, keys: list[tuple[int, int]]) -> LabelledView:
        index = torch.tensor([i for _, i in keys])
        decoded, label = self.records.batch(index)
        return LabelledView(draw_view(self.augmentations, decoded, self.seed, keys[0][0], index), label)

    def __getitem__(self, key: tuple[int, int]) -> LabelledView:
        return self.__getitems__([key])


class CleanDataset(Dataset):
    """Batches of clean records; damaged ones are left out.

    Args:
        rank, world: which part of every batch is this rank's.
    """

    def __init__(
        self, records: DecodedRecords, augmentations: AugmentationSet, batch_size: int, rank: int, world: int
    ):
        self.records, self.augmentations = records, augmentations
        self.batches = torch.arange(rank, len(records), world).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> LabelledView | None:
        decoded = [(self.records.get(j), j) for j in self.batches[i].tolist()]
        intact = [(self.augmentations.clean(record), j) for record, j in decoded if record is not None]
        if not intact:
            return None
        samples, index = zip(*intact, strict=True)
        return LabelledView(self.augmentations.collate(samples), self.records.records.labels[list(index)])


def listed(records: Records, path: str | Path) -> Tensor:
    """Indices of the records whose file names stand in a text file, one a line.

    The published 1 % and 10 % of ImageNet are such files.

    Raises:
        DataError: no such list, or names that no record has.
    """
    try:
        wanted = [
            line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {str(path)!r}: {error}") from error
    indices = {Path(records.name(i)).name: i for i in range(len(records))}
    missing = [name for name in wanted if Path(name).name not in indices]
    if missing or not wanted:
        raise DataError(
            f"{len(missing)} of {len(wanted)} names in {str(path)!r} are no records; first: {missing[:1]}"
        )
    return torch.tensor([indices[Path(name).name] for name in wanted])


class ClassificationData(pl.LightningDataModule):
    """Labelled records of one source.

    Args:
        augmentations: the augmentation set.
        modality: how to open the source.
        seed: the run's seed.
        source: as in pretraining; labels are needed.
        batch_size: the global batch, over all ranks.
        content_column, label_column: columns of a table; found by convention.
        train_split, test_split: names of the splits; found by convention.
        subset: a text file with the names of the training files to use, one a line.
        per_class: use this many labels a class, drawn by the seed.
        validation: share of the training split to test on instead of the test split, for choices.
        cache: decode once and keep everything in memory.
        num_workers: loader processes.
        damaged_share: the share of the records that may be damaged; more end the run.
        damaged_least: the number that may be damaged whatever their share, if they are at most half.
        run: the run directory, whose damaged.txt lists all damaged records.

    Attributes:
        tolerance: how much damage is no error, and the list of it, which begins when the directory exists.
    """

    def __init__(
        self,
        augmentations: AugmentationSet,
        modality: Modality,
        seed: int,
        source: str,
        batch_size: int = 256,
        content_column: str | None = None,
        label_column: str | None = None,
        train_split: str | None = None,
        test_split: str | None = None,
        subset: str | None = None,
        per_class: int | None = None,
        validation: float = 0.0,
        cache: bool = False,
        num_workers: int = 0,
        damaged_share: float = 0.01,
        damaged_least: int = 5,
        run: Path | None = None,
    ):
        super().__init__()
        if not 0 <= validation < 1:
            raise ValueError(f"validation is a share in [0, 1), not {validation}")
        self.tolerance = tolerance(damaged_share, damaged_least, run)
        augmentations = completed(augmentations)
        splits = open_source(
            source, modality, content_column=content_column, label_column=label_column,
            train_split=train_split, test_split=test_split, require_labels=True,
        )  # fmt: skip
        self.found = summary(splits)
        train, test, self.tested_on = splits.train, splits.test, "test"
        if validation:
            rest, held_out = stratified_split(train.labels, validation, seed)
            train, test, self.tested_on = train.subset(rest), train.subset(held_out), "validation"
        if subset is not None:
            train = train.subset(listed(train, subset))
        if per_class is not None:
            train = train.subset(few_labels(train.labels, per_class, 0, seed))
        check_batch_size(batch_size, len(train))  # before long work
        self.train, self.test = (
            DecodedRecords(records, augmentations.decode, cache, **self.tolerance._asdict())
            for records in (train, test)
        )
        self.augmentations, self.seed = augmentations, seed
        self.batch_size, self.num_workers = batch_size, num_workers

    def state_dict(self) -> dict[str, int]:
        return {"records": len(self.train)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        check_same_records(len(self.train), state_dict["records"])

    def train_dataloader(self) -> DataLoader:
        dataset = OneViewDataset(self.train, self.augmentations, self.seed)
        rank, world, start = place(self.trainer, len(dataset) // self.batch_size)
        pin_memory = torch.cuda.is_available()
        return training_loader(dataset, self.batch_size, rank, world, self.num_workers, pin_memory, start)

    def val_dataloader(self) -> DataLoader:
        rank, world, _ = place(self.trainer, 1)
        return Loader(
            CleanDataset(self.test, self.augmentations, self.batch_size, rank, world),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )
