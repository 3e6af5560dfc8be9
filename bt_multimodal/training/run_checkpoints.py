"""Checkpoints of a run and the signals that stop it; a continued run gives the same results as a whole one.

A checkpoint holds weights, optimiser, schedule, scaler, the position in the epoch, the state of the
augmentation set, the sums of the callbacks and the random states of every rank. Views depend only on
(seed, epoch, sample), so the data need no state.
"""

import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from bt_multimodal.distributed.collectives import world_size
from bt_multimodal.errors import Stopped, TrainingFailedError
from bt_multimodal.safe_files import PARTIAL, write_safely
from bt_multimodal.stop_signals import held, received, stop_signals
from bt_multimodal.training.random_state import random_state, restore_random_state

# What a checkpoint must hold so that a run can go on from it.
_PARTS = (
    "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "random_states", "global_step",
)  # fmt: skip


@dataclass
class CheckpointOptions:
    """How often a run is saved. It is always saved at its end, and when a signal stops it.

    Args:
        minutes: minutes between two checkpoints.
        steps: save at the multiples of this number of steps, instead of every ``minutes``.
        keep: the number of newest checkpoints to keep.

    Raises:
        ValueError: a number that is out of range.
    """

    minutes: float = 10.0
    steps: int | None = None
    keep: int = 3

    def __post_init__(self) -> None:
        if self.minutes < 0 or self.keep < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(
                f"needs minutes >= 0, steps >= 1, keep >= 1; got {self.minutes}, {self.steps}, {self.keep}"
            )


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint in a folder, or ``None`` without checkpoints.

    Prints a warning to stderr for each damaged checkpoint. Only tensors and plain values are read: a
    pickle that would run code counts as damaged.

    Raises:
        ValueError: there are checkpoints, but none of them is intact.
    """
    paths = _by_step(folder)
    for path in reversed(paths):
        damage = _damage(path)
        if damage is None:
            return path
        print(f"warning: the checkpoint {path} is not used: {damage}", file=sys.stderr)
    if paths:
        raise ValueError(f"none of the {len(paths)} checkpoints in {folder} is intact")
    return None


def _by_step(folder: Path) -> list[Path]:
    def step(path: Path) -> int:
        number = path.stem.partition("=")[2]
        return int(number) if number.isdigit() else -1

    return sorted((path for path in folder.glob("step=*.ckpt") if step(path) >= 0), key=step)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in one line; ``None`` if it is intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                return f"its member {member} is damaged"
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # unpickling raises errors of any type
        line = (str(error).strip().splitlines() or [""])[0]
        if "weights_only" in line:
            line = "it holds more than tensors and plain values"
        return f"{type(error).__name__}: {line}"
    missing = [part for part in _PARTS if not isinstance(state, dict) or part not in state]
    return f"it lacks {', '.join(missing)}" if missing else None


def last_good(trainer: pl.Trainer) -> str:
    """For a message: the last good checkpoint of a run that fails."""
    last = getattr(trainer.checkpoint_callback, "last", None)
    return f"last good checkpoint: {last or 'none yet'}"


class SafeCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically; reads only tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_safely(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> Any:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class _Agreement:
    """The maximum of values over ranks, available one step later.

    The communication uses gloo and overlaps with the next step; it never waits for a device.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._work: Any = None
        self._sent = torch.zeros(0)

    def now(self, value: int) -> int:
        """The maximum over ranks of a value, for which all of them wait."""
        if self._group is None:
            return value
        agreed = torch.tensor(value)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, group=self._group)
        return int(agreed)

    def exchange(self, values: list[int]) -> list[int]:
        """Send this rank's values; return the maximum over ranks of those of the previous call."""
        if self._group is None:
            return values
        agreed = [0] * len(values)
        if self._work is not None:
            self._work.wait()
            agreed = self._sent.tolist()
        self._sent = torch.tensor(values)
        self._work = dist.all_reduce(self._sent, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed


class RunCheckpoints(Checkpoint):
    """Saves a run, stops it on a signal, and restores the random states, which Lightning does not.

    Args:
        folder: the folder of the checkpoints, which are named after their steps.
        options: how often to save.
        busy: context in which a checkpoint is written, which may take long on rank 0.
        on_begin: called on rank 0 before the first step, once a checkpoint to continue from is loaded.
        extend: whether the learning rate follows a new schedule from here on, not the checkpoint's.

    Attributes:
        folder: as given.
        last: the newest checkpoint; the caller sets it to continue from a checkpoint.

    Raises:
        TrainingFailedError: a checkpoint cannot be written, weights are not finite (these are not saved),
            or the ranks see different checkpoints.
        Stopped: on all ranks, after a signal to any of them (`stop_signals`), once the run is saved.
    """

    def __init__(
        self,
        folder: Path,
        options: CheckpointOptions,
        busy: Callable[[], AbstractContextManager[Any]] = nullcontext,
        on_begin: Callable[[], None] = lambda: None,
        extend: bool = False,
    ):
        self.last: Path | None = None
        self.folder, self._options, self._busy = folder, options, busy
        self._on_begin, self._extend = on_begin, extend
        self._stop = 0
        self._due = False
        self._signals = ExitStack()
        self._random: list[dict[str, Any]] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            for partial in self.folder.glob(f"*{PARTIAL}"):
                partial.unlink()
        if world_size() > 1:
            names: list[Any] = [None] * world_size()
            dist.all_gather_object(names, self.last and self.last.name)
            if len(set(names)) > 1:
                raise TrainingFailedError(
                    f"the ranks would continue from different checkpoints: {names}; "
                    "put the run directory on a file system that all machines share"
                )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states: list[Any] = [random_state()]
        if world_size() > 1:
            states = [None] * world_size()
            dist.all_gather_object(states, random_state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._random = checkpoint["random_states"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not earlier, because the setup draws random numbers too.
        if self._random is not None and trainer.global_rank < len(self._random):
            restore_random_state(self._random[trainer.global_rank])
        self._agreement = _Agreement()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self._signals.enter_context(stop_signals())
        self._signals.enter_context(held())
        if self._random is not None and self._extend:
            _follow_schedule(trainer)
        if trainer.is_global_zero:
            self._on_begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        late = time.monotonic() - self._saved_at >= 60 * self._options.minutes
        self._stop, due = self._agreement.exchange([received(), int(late and trainer.is_global_zero)])
        if self._options.steps is not None:
            due = trainer.global_step % self._options.steps == 0
        self._due = bool(self._due or due or self._stop)
        if not trainer.is_last_batch:  # after the last batch, wait for the metrics of the epoch
            self._save_or_stop(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Rank 0 may have looked at the encoder for long.
        self._stop = max(self._stop, self._agreement.now(received()))
        self._due = bool(self._due or self._stop)
        self._save_or_stop(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self._saved_step:
            self._save(trainer, pl_module)
        number = received()
        self._signals.close()
        if number and trainer.is_global_zero:  # the other ranks have nothing left to do
            raise Stopped(number, f"after the last step, saved in {self.last}")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._signals.close()

    def _save_or_stop(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._due:
            self._save(trainer, pl_module)
        if self._stop:
            raise Stopped(self._stop, f"at step {trainer.global_step}, saved in {self.last}")

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, parameter in pl_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingFailedError(
                    f"the weights {name} are not finite at step {trainer.global_step}; {last_good(trainer)}"
                )
        path = self.folder / f"step={trainer.global_step:09d}.ckpt"
        try:
            with self._busy():
                trainer.save_checkpoint(path)
        except (OSError, RuntimeError) as error:
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise TrainingFailedError(
                f"cannot write the checkpoint {path}: {cause}; {last_good(trainer)}"
            ) from error
        self.last, self._due = path, False
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            for old in _by_step(self.folder)[: -self._options.keep]:
                old.unlink()


def _follow_schedule(trainer: pl.Trainer) -> None:
    """Set the learning rates to those of the schedule; a checkpoint brings those of its own."""
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        rates = [
            base * factor(scheduler.last_epoch)
            for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates
