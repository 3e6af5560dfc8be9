"""What watches a run: progress, metrics, health, the online probe."""

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tqdm import tqdm

from bt_multimodal.datamodule import TwinData
from bt_multimodal.errors import TrainingFailedError
from bt_multimodal.features import extract_features
from bt_multimodal.pretraining import Pretraining
from bt_multimodal.probes import accuracy, dead_dimensions, effective_rank, knn


class MetricsFile:
    """``metrics.csv``: a row at a time, appended, so that a continued run goes on in the same file."""

    COLUMNS = (
        "epoch", "step", "loss", "invariance", "redundancy", "rms_off_diagonal", "lr", "samples_per_s",
        "knn", "effective_rank", "dead_dimensions",
    )  # fmt: skip

    def __init__(self, path: Path):
        self._path = path

    def append(self, **metrics: float) -> None:
        new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(metrics)


class Watch(pl.Callback):
    """Progress bar, metrics of every epoch, and an end to a run whose loss is no number.

    Losses are given per embedding dimension, so that they mean something at any width.

    Args:
        metrics: where the epochs' means go.
        unit: what the samples are called, plural.
        every: steps between looks at the loss.
    """

    def __init__(self, metrics: MetricsFile, unit: str, every: int = 10):
        self._metrics, self._unit, self._every = metrics, unit, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batch = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        steps = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        self._bar = tqdm(
            total=steps * batch,
            initial=trainer.global_step * batch,
            unit=f" {self._unit}",
            unit_scale=True,
            disable=not trainer.is_global_zero,
            mininterval=0.5,
        )
        self._batch = batch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps, self._began = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name in ("loss", "invariance", "redundancy"):
            value = outputs[name].detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1
        self._bar.update(self._batch)
        if batch_idx % self._every == 0:
            d = self._width(pl_module)
            loss = outputs["loss"].item()
            if not math.isfinite(loss):
                kept = getattr(trainer.checkpoint_callback, "last_model_path", "") or "none yet"
                raise TrainingFailedError(
                    f"the loss is {loss} at step {trainer.global_step} (epoch {trainer.current_epoch}); "
                    f"last good checkpoint: {kept}"
                )
            self._bar.set_description(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False
            )
            self._bar.set_postfix_str(f"loss per dimension {loss / d:.4f}", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        d = self._width(pl_module)
        means = {name: (total / self._steps).item() for name, total in self._sums.items()}
        metrics = {name: value / d for name, value in means.items()}
        metrics["rms_off_diagonal"] = math.sqrt(max(means["redundancy"], 0.0) / max(d * (d - 1), 1))
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        metrics["samples_per_s"] = self._steps * self._batch / (time.perf_counter() - self._began)
        if trainer.is_global_zero:
            self._metrics.append(epoch=trainer.current_epoch + 1, step=trainer.global_step, **metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()

    @staticmethod
    def _width(pl_module: Pretraining) -> int:
        return getattr(pl_module.twins.projector, "out_features", 1)


class OnlineProbe(pl.Callback):
    """kNN on the validation split, effective rank and dead dimensions of the features.

    Args:
        metrics: where the figures go.
        every: epochs between two looks; the last epoch is always looked at.
        bank: training samples in the kNN's bank at most.
    """

    def __init__(self, metrics: MetricsFile, every: int = 1, bank: int = 10_000):
        self._metrics, self._every, self._bank = metrics, every, bank

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self._every and epoch != trainer.max_epochs:
            return
        data: TwinData = trainer.datamodule  # type: ignore[attr-defined]
        if not len(data.validation) or not data.labelled or not trainer.is_global_zero:
            return
        encoder, device = pl_module.twins.encoder, pl_module.device
        bank = data.train.subset(torch.arange(min(self._bank, len(data.train))))
        train = extract_features(encoder, data.views, bank, device=device)
        held = extract_features(encoder, data.views, data.validation, device=device)
        predicted = knn(train.features, train.labels, held.features, min(20, len(train.labels)))
        metrics = {
            "knn": accuracy(predicted, held.labels),
            "effective_rank": effective_rank(held.features),
            "dead_dimensions": dead_dimensions(held.features),
        }
        self._metrics.append(epoch=epoch, step=trainer.global_step, **metrics)
