"""Callbacks of a training run: progress, metrics, health checks and the online probe."""

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
from bt_multimodal.errors import Stopped, TrainingFailedError
from bt_multimodal.evaluation.features import extract_features
from bt_multimodal.evaluation.probes import accuracy, dead_dimensions, effective_rank, knn
from bt_multimodal.safe_files import write_safely
from bt_multimodal.stop_signals import not_held
from bt_multimodal.training.place import run_length
from bt_multimodal.training.pretraining import Pretraining
from bt_multimodal.training.pretraining_data import PretrainingData
from bt_multimodal.training.run_checkpoints import last_good


class MetricsFile:
    """``metrics.csv``: rows are appended one by one, so a continued run extends the same file."""

    COLUMNS = (
        "epoch", "step", "loss", "invariance", "redundancy", "rms_off_diagonal", "lr", "samples_per_s",
        "knn", "effective_rank", "dead_dimensions",
    )  # fmt: skip

    def __init__(self, path: Path):
        self._path = path

    def append(self, trainer: pl.Trainer, **metrics: float) -> None:
        """Append a row with the trainer's current epoch and step, unless ``metrics`` has others.

        Raises:
            TrainingFailedError: the file cannot be written.
        """
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics}
        try:
            new = not self._path.exists()
            with self._path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise TrainingFailedError(f"cannot write {self._path}: {error}; {last_good(trainer)}") from error

    def has(self, epoch: int, metric: str) -> bool:
        """Whether the metric of an epoch is in the file."""
        with self._path.open(encoding="utf-8", newline="") as file:
            return any(row["epoch"] == str(epoch) and row[metric] for row in csv.DictReader(file))

    def rewind(self, step: int) -> None:
        """Remove the rows after ``step``, which a run wrote after the checkpoint that it continues from."""
        if not self._path.exists():
            return
        try:
            # A killed process may leave half a line.
            lines = self._path.read_text(encoding="utf-8").rpartition("\n")[0]
            reader = csv.DictReader(io.StringIO(lines, newline=""), strict=True)
            rows = [row for row in reader if int(row["step"]) <= step]
            if any(None in row for row in rows):
                raise ValueError("a row has more cells than the first line")
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            reason = "it has no column step" if isinstance(error, KeyError | TypeError) else error
            raise TrainingFailedError(
                f"{self._path} is damaged ({reason}): repair it, or move it away to continue without its rows"
            ) from error
        text = io.StringIO()
        columns = dict.fromkeys((*self.COLUMNS, *(reader.fieldnames or ())))
        writer = csv.DictWriter(text, [*columns])
        writer.writeheader()
        writer.writerows(rows)
        write_safely(self._path, lambda file: file.write(text.getvalue().encode()))


class Watch(pl.Callback):
    """Shows progress, records metrics, and ends a run whose loss or gradient is not finite.

    Losses are shown per embedding dimension, so that they are comparable between widths.

    Args:
        metrics: the file for the means of each epoch.
        unit: the plural of a sample, such as ``"images"``.
        every: steps between checks of the loss and the gradient.

    Raises:
        TrainingFailedError: the loss or a gradient is not finite.
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
        steps = run_length(trainer, int(trainer.num_training_batches))
        self._bar = tqdm(
            total=steps * self._batch,
            initial=trainer.global_step * self._batch,
            unit=f" {self._unit}",
            unit_scale=True,
            disable=not trainer.is_global_zero,
            mininterval=0.5,
        )
        self._sums = {name: total.to(pl_module.device) for name, total in self._sums.items()}
        self._began = time.perf_counter()  # in a continued epoch, only the rest is timed
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
        # A gradient scaler handles overflows itself.
        if trainer.global_step % self._every or has_scaler(trainer):
            return
        grads = [
            (name, p.grad.coalesce().values() if p.grad.is_sparse else p.grad)
            for name, p in pl_module.named_parameters()
            if p.grad is not None
        ]
        norms = torch.stack([norm.float() for norm in torch._foreach_norm([grad for _, grad in grads])])
        if not torch.isfinite(norms.sum()):
            name, norm = next(
                (name, norm)
                for (name, _), norm in zip(grads, norms.tolist(), strict=True)
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
    """Detects collapsed representations: nearly all dimensions are dead, or one has all the variance.

    Checks the encoder's output for the first view of a training batch. A collapse is an effective rank
    below 1.5, or 99 % dead dimensions, in three checks in a row on every rank. Encoders with fewer than
    8 features and batches with fewer than 8 samples are not checked.

    Args:
        end: whether a collapse ends the run; otherwise it prints one warning.
        every: steps between checks.

    Raises:
        TrainingFailedError: the representations have collapsed, if ``end``.
    """

    def __init__(self, end: bool = True, every: int = 50):
        self._end, self._every = end, every
        self._features: torch.Tensor | None = None
        self._capture = self._warned = False
        self._collapsed_checks = 0  # in a row

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._hook = pl_module.twins.encoder.register_forward_hook(self._capture_features)

    def _capture_features(self, module: Any, args: Any, output: torch.Tensor) -> None:
        if self._capture:
            self._features, self._capture = output.detach(), False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._capture = trainer.global_step % self._every == 0 and not self._warned

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        features, self._features = self._features, None
        if features is None:
            return
        collapsed, rank, dead = False, math.nan, math.nan
        if min(features.shape) >= 8 and bool(torch.isfinite(features).all()):
            rank, dead = effective_rank(features), dead_dimensions(features)
            collapsed = rank < 1.5 or dead >= 0.99
        everywhere = trainer.strategy.reduce_boolean_decision(collapsed, all=True)
        self._collapsed_checks = self._collapsed_checks + 1 if everywhere else 0
        if self._collapsed_checks < 3:
            return
        message = (
            f"the representations have collapsed at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}): of {features.shape[1]} dimensions {100 * dead:.0f} % are dead, "
            f"effective rank {rank:.1f}; {last_good(trainer)}"
        )
        if self._end:
            raise TrainingFailedError(message)
        self._warned = True
        if trainer.is_global_zero:
            tqdm.write(f"warning: {message}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hook.remove()


class OnlineProbe(pl.Callback):
    """kNN accuracy on the validation split, and effective rank and dead dimensions of the features.

    Args:
        metrics: the file for the results.
        augmentations: the augmentation set; the encoder gets its clean views.
        seed: of the random choice of the kNN's bank.
        every: epochs between probes; the last epoch is always probed.
        bank: the largest number of training samples in the kNN's bank.
        busy: context in which rank 0 runs the probe while the others wait.
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
        self._due = 0  # the epoch whose probe a signal has stopped

    def state_dict(self) -> dict[str, Any]:
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._due = state_dict["due"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._due:  # the weights are still those of the end of that epoch
            self._look(trainer, pl_module, self._due)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._due and trainer.is_global_zero:  # of a run without a step left, which has no start
            self._metrics.rewind(trainer.global_step)
            if not self._metrics.has(self._due, "knn"):
                self._look(trainer, pl_module, self._due)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if last or epoch % self._every == 0:
            self._look(trainer, pl_module, epoch)

    def _look(self, trainer: pl.Trainer, pl_module: Any, epoch: int) -> None:
        data: PretrainingData = trainer.datamodule  # type: ignore[attr-defined]
        if not data.labelled or not trainer.is_global_zero:
            return
        if not len(data.samples.train.labelled()) or not len(data.samples.validation.labelled()):
            return
        self._due = epoch
        try:
            with self._busy(), not_held():
                metrics = self._probe(data, pl_module)
        except Stopped:  # `RunCheckpoints` saves the run and ends it
            return
        self._due = 0
        self._metrics.append(trainer, epoch=epoch, **metrics)

    def _probe(self, data: PretrainingData, pl_module: Any) -> dict[str, float]:
        encoder, device = pl_module.twins.encoder, pl_module.device
        samples = data.samples
        train, validation = samples.train.labelled(), samples.validation.labelled()
        # A random choice, because the records of a folder are sorted by class.
        indices = shuffled(len(train), self._seed, 0)[: self._bank].sort().values
        bank = extract_features(encoder, self._augmentations, train.subset(indices), device=device)
        queries = extract_features(encoder, self._augmentations, validation, device=device)
        predicted = knn(bank.features, bank.labels, queries.features, min(20, len(bank.labels)))
        return {
            "knn": accuracy(predicted, queries.labels),
            "effective_rank": effective_rank(queries.features),
            "dead_dimensions": dead_dimensions(queries.features),
        }
