"""What watches a run: progress, metrics, health, the online probe."""

import csv
import io
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tqdm import tqdm

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.compat import has_scaler
from bt_multimodal.data.batches import shuffled
from bt_multimodal.errors import TrainingFailedError
from bt_multimodal.evaluation.features import extract_features
from bt_multimodal.evaluation.probes import accuracy, dead_dimensions, effective_rank, knn
from bt_multimodal.safe_files import write_safely
from bt_multimodal.training.pretraining import Pretraining
from bt_multimodal.training.pretraining_data import PretrainingData
from bt_multimodal.training.run_checkpoints import last_good


class MetricsFile:
    """``metrics.csv``: a row at a time, appended, so that a continued run goes on in the same file."""

    COLUMNS = (
        "epoch", "step", "loss", "invariance", "redundancy", "rms_off_diagonal", "lr", "samples_per_s",
        "knn", "effective_rank", "dead_dimensions",
    )  # fmt: skip

    def __init__(self, path: Path):
        self._path = path

    def append(self, trainer: pl.Trainer, **metrics: float) -> None:
        """A row, of the epoch and step that the trainer is at.

        Raises:
            TrainingFailedError: it cannot be written.
        """
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics}
        try:
            new = not self._path.exists()
            with self._path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise TrainingFailedError(f"cannot write {self._path}: {error}; {last_good(trainer)}") from error

    def rewind(self, step: int) -> None:
        """Leave the rows up to ``step``: what a run wrote beyond the checkpoint it continues from goes."""
        if not self._path.exists():
            return
        whole = self._path.read_text().rpartition("\n")[0]  # a killed process may leave half a line
        rows = [row for row in csv.DictReader(whole.splitlines()) if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_safely(self._path, lambda file: file.write(text.getvalue().encode()))


class Watch(pl.Callback):
    """Progress bar, metrics of every epoch, and an end to a run whose loss or gradient is no number.

    Losses are given per embedding dimension, so that they mean something at any width.

    Args:
        metrics: where the epochs' means go.
        unit: what the samples are called, plural.
        every: steps between looks at the loss and the gradient.
    """

    def __init__(self, metrics: MetricsFile, unit: str, every: int = 10):
        self._metrics, self._unit, self._every = metrics, unit, every
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = self._timed = 0

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._steps = dict(state_dict["sums"]), state_dict["steps"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batch = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        steps = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        self._bar = tqdm(
            total=steps * self._batch,
            initial=trainer.global_step * self._batch,
            unit=f" {self._unit}",
            unit_scale=True,
            disable=not trainer.is_global_zero,
            mininterval=0.5,
        )
        self._sums = {name: total.to(pl_module.device) for name, total in self._sums.items()}
        self._began = time.perf_counter()  # of an epoch that was begun by another process, the rest
        if trainer.is_global_zero:
            self._metrics.rewind(trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sums, self._steps, self._timed = {}, 0, 0
        self._began = time.perf_counter()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        if trainer.global_step % self._every == 0 and not torch.isfinite(loss):
            raise TrainingFailedError(
                f"the loss is {loss.item()} at step {trainer.global_step} (epoch {trainer.current_epoch}); "
                f"{last_good(trainer)}"
            )

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        # A scaler has its own way with gradients that overflow.
        if trainer.global_step % self._every or has_scaler(trainer):
            return
        named = [(name, p.grad) for name, p in pl_module.named_parameters() if p.grad is not None]
        norms = torch.stack([norm.float() for norm in torch._foreach_norm([grad for _, grad in named])])
        if not torch.isfinite(norms.sum()):
            name, norm = next(
                (name, norm)
                for (name, _), norm in zip(named, norms.tolist(), strict=True)
                if not math.isfinite(norm)
            )
            raise TrainingFailedError(
                f"the gradient of {name} is {norm} at step {trainer.global_step} "
                f"(epoch {trainer.current_epoch}); {last_good(trainer)}"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name in ("loss", "invariance", "redundancy"):
            value = outputs[name].detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps, self._timed = self._steps + 1, self._timed + 1
        self._bar.update(self._batch)
        if batch_idx % self._every == 0:
            loss = outputs["loss"].item() / self._width(pl_module)
            self._bar.set_description(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False
            )
            self._bar.set_postfix_str(f"loss per dimension {loss:.4f}", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        d = self._width(pl_module)
        means = {name: (total / self._steps).item() for name, total in self._sums.items()}
        metrics = {name: value / d for name, value in means.items()}
        metrics["rms_off_diagonal"] = math.sqrt(max(means["redundancy"], 0.0) / max(d * (d - 1), 1))
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        metrics["samples_per_s"] = self._timed * self._batch / (time.perf_counter() - self._began)
        if trainer.is_global_zero:
            self._metrics.append(trainer, **metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()

    @staticmethod
    def _width(pl_module: Pretraining) -> int:
        return getattr(pl_module.twins.projector, "out_features", 1)


class CollapseWatch(pl.Callback):
    """Names representations that have collapsed: nearly all dimensions dead, or all variance in one.

    Looks at what the encoder gives of a training batch's first view. A collapse is an effective rank
    under 1.5, or 99 % of the dimensions dead, in three looks in a row on every rank. Encoders of fewer
    than 8 features and batches of fewer than 8 samples are not looked at.

    Args:
        end: whether a collapse ends the run; else a warning says it once.
        every: steps between looks.
    """

    def __init__(self, end: bool = True, every: int = 50):
        self._end, self._every = end, every
        self._features: torch.Tensor | None = None
        self._wanted = self._said = False
        self._looks = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._hook = pl_module.twins.encoder.register_forward_hook(self._keep)

    def _keep(self, module: Any, args: Any, output: torch.Tensor) -> None:
        if self._wanted:
            self._features, self._wanted = output.detach(), False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._wanted = trainer.global_step % self._every == 0 and not self._said

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        features, self._features = self._features, None
        if features is None:
            return
        bad, rank, dead = False, math.nan, math.nan
        if min(features.shape) >= 8 and bool(torch.isfinite(features).all()):
            rank, dead = effective_rank(features), dead_dimensions(features)
            bad = rank < 1.5 or dead >= 0.99
        self._looks = self._looks + 1 if trainer.strategy.reduce_boolean_decision(bad, all=True) else 0
        if self._looks < 3:
            return
        said = (
            f"the representations have collapsed at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}): of {features.shape[1]} dimensions {100 * dead:.0f} % are dead, "
            f"effective rank {rank:.1f}; {last_good(trainer)}"
        )
        if self._end:
            raise TrainingFailedError(said)
        self._said = True
        if trainer.is_global_zero:
            tqdm.write(f"warning: {said}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hook.remove()


class OnlineProbe(pl.Callback):
    """kNN on the validation split, effective rank and dead dimensions of the features.

    Args:
        metrics: where the figures go.
        augmentations: the augmentation set, whose clean views the encoder is given.
        seed: of the choice of the bank.
        every: epochs between two looks; the last epoch is always looked at.
        bank: training samples in the kNN's bank at most, drawn at random.
        busy: entered while rank 0 looks and the others wait.
    """

    def __init__(
        self,
        metrics: MetricsFile,
        augmentations: AugmentationSet,
        seed: int = 0,
        every: int = 1,
        bank: int = 10_000,
        busy: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self._metrics, self._augmentations, self._seed = metrics, augmentations, seed
        self._every, self._bank, self._busy = every, bank, busy

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self._every and epoch != trainer.max_epochs:
            return
        data: PretrainingData = trainer.datamodule  # type: ignore[attr-defined]
        if not len(data.samples.validation) or not data.labelled or not trainer.is_global_zero:
            return
        with self._busy():
            metrics = self._look(data, pl_module)
        self._metrics.append(trainer, **metrics)

    def _look(self, data: PretrainingData, pl_module: Any) -> dict[str, float]:
        encoder, device = pl_module.twins.encoder, pl_module.device
        samples = data.samples
        # At random: the records of a folder are sorted by class.
        bank = shuffled(len(samples.train), self._seed, 0)[: self._bank].sort().values
        train = extract_features(encoder, self._augmentations, samples.train.subset(bank), device=device)
        held = extract_features(encoder, self._augmentations, samples.validation, device=device)
        predicted = knn(train.features, train.labels, held.features, min(20, len(train.labels)))
        return {
            "knn": accuracy(predicted, held.labels),
            "effective_rank": effective_rank(held.features),
            "dead_dimensions": dead_dimensions(held.features),
        }
