"""Multi-rank training under Lightning: synchronised BatchNorm and detection of silent ranks."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl

from bt_multimodal.distributed.batch_norm import synchronise_batch_norm
from bt_multimodal.distributed.rank_watch import RankWatch
from bt_multimodal.errors import Stopped, TrainingFailedError


class Ranks(pl.Callback):
    """Synchronises BatchNorm over ranks, and ends a run in which a rank stops responding.

    Args:
        timeout: seconds without a step after which the other ranks end and name the silent one.
        synchronise: whether BatchNorm takes its statistics over all ranks.

    Raises:
        TrainingFailedError: a collective failed because a rank no longer responds; names that rank.
    """

    def __init__(self, timeout: float, synchronise: bool = True):
        self._timeout, self._synchronise = timeout, synchronise
        self._watch: RankWatch | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        if stage == "fit" and self._synchronise:
            synchronise_batch_norm(pl_module, trainer.strategy.root_device.type)
        self._watch = RankWatch(self._timeout)
        self._watch.start()

    def busy(self) -> AbstractContextManager[Any]:
        """Context for work of one rank while the others wait for it."""
        return self._watch.busy() if self._watch is not None else nullcontext()

    def _progress(self) -> None:
        if self._watch is not None:
            self._watch.progress()

    def on_train_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_test_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        watch, self._watch = self._watch, None
        if watch is not None and isinstance(exception, Stopped):  # all ranks raise it: a normal end
            watch.stop()
            return
        cause = watch.blame() if watch is not None and type(exception) is RuntimeError else None
        if cause is not None:
            raise TrainingFailedError(cause) from exception

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
