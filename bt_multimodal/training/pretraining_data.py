"""The data of a pretraining run, as Lightning sees them."""

from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl
import torch

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.columns import DataError
from bt_multimodal.data.damage import tolerance
from bt_multimodal.data.progress import working
from bt_multimodal.data.records import open_source
from bt_multimodal.data.sources.summary import summary
from bt_multimodal.data.streamed_samples import StreamedSamples
from bt_multimodal.data.streams import open_stream
from bt_multimodal.data.whole_samples import WholeSamples
from bt_multimodal.modality import Modality
from bt_multimodal.training.place import place
from bt_multimodal.training.restored import check_same_records
from bt_multimodal.views import Views


class PretrainingData(pl.LightningDataModule):
    """Twin views of the training split, and records for probing.

    Args:
        augmentations: the augmentation set.
        modality: how to open the source.
        seed: the run's seed.
        source: a folder, a manifest (CSV, TSV, JSONL), Parquet, a hub data set's name, or an embedded set
            such as ``sklearn:digits``; or several of them, taken together.
        batch_size: the global batch, over all ranks.
        content_column, label_column: columns of a table; found by convention.
        train_split, test_split: names of the splits; found by convention.
        validation: share of the training split kept out of training, for choices and the online probe. The
            default is nothing where nothing has a label, for then there is nothing to probe.
        cache: decode once and keep everything in memory.
        num_workers: loader processes.
        stream: how many records are called an epoch. The source (a hub data set, or a Parquet or tar file
            (WebDataset) or a folder of them) is then read while it is trained on instead of opened whole,
            without labels, validation or test records.
        damaged_share: the share of the records that may be damaged; more end the run.
        damaged_least: the number that may be damaged whatever their share, if they are at most half.
        run: the run directory, whose damaged.txt lists all damaged records.

    Attributes:
        samples: the records, and the batches made of them.
        tolerance: how much damage is no error, and the list of it, which begins when the directory exists.
        found: lines that say what was found in the source.
    """

    def __init__(
        self,
        augmentations: AugmentationSet,
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
        damaged_share: float = 0.01,
        damaged_least: int = 5,
        run: Path | None = None,
    ):
        super().__init__()
        if not 0 <= validation < 1:
            raise ValueError(f"validation is a share in [0, 1), not {validation}")
        self.batch_size, self.num_workers = batch_size, num_workers
        self.tolerance = tolerance(damaged_share, damaged_least, run)
        self.samples: WholeSamples | StreamedSamples
        if stream is None:
            with working("opening the source"):
                splits = open_source(
                    source, modality, content_column=content_column, label_column=label_column,
                    train_split=train_split, test_split=test_split,
                )  # fmt: skip
            if validation == 0.1 and not (splits.train.labels >= 0).any():
                validation = 0.0
            self.found = summary(splits)
            self.samples = WholeSamples(
                splits, augmentations, seed, batch_size, validation, cache, self.tolerance
            )
        elif isinstance(source, str):
            opened = open_stream(source, modality, content_column, train_split)
            self.found = [f"{source}: {opened.files} file(s), read while they are trained on, without labels"]
            self.samples = StreamedSamples(opened, augmentations, seed, batch_size, stream, self.tolerance)
        else:
            raise DataError("a stream has one source; a folder may hold several files of it")
        if stream is None and not self.labelled:
            self.found.append(
                "  nothing is probed: that takes labels of two classes in train, and labels in test"
            )

    @property
    def labelled(self) -> bool:
        """Whether there is anything to probe: labels of two classes or more in train, and labels in test."""
        train, test = self.samples.train_full.records.labels, self.samples.test.records.labels
        return len(train[train >= 0].unique()) > 1 and bool((test >= 0).any())

    def check_former(self) -> None:
        """Refuse a checkpoint of an earlier version, which kept 20 % of unlabelled records out of training.

        Raises:
            ValueError: the source is such a one.
        """
        samples = self.samples
        if isinstance(samples, WholeSamples) and not self.labelled and not len(samples.test):
            raise ValueError(
                "an earlier version began this run on 80 % of these unlabelled records, and now all of them "
                "are trained on, so it cannot be continued: choose another --run_dir"
            )

    def state_dict(self) -> dict[str, int]:
        return {"records": len(self.samples.train)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        check_same_records(len(self.samples.train), state_dict["records"])

    def train_dataloader(self) -> Iterable[Views]:
        rank, world, start = place(self.trainer, self.samples.steps)
        return self.samples.loader(rank, world, start, self.num_workers, torch.cuda.is_available())
