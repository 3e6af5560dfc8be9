"""A run that trains: its directory, its seed, its trainer, and what it leaves."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_multimodal.commands.continued import check_settings, kept_config, measured
from bt_multimodal.commands.run_folder import CHECKPOINTS, CONFIG, RunFolder, link_latest, new_folder
from bt_multimodal.commands.trainer_options import check_options
from bt_multimodal.errors import Stopped
from bt_multimodal.launchers import is_first_rank
from bt_multimodal.safe_files import write_safely

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.evaluation.report import Comparison
    from bt_multimodal.training.ranks import Ranks

_RUN_DIR = "BT_MULTIMODAL_RUN_DIR"  # left for the ranks that Lightning starts by this command again
_ONE_BY_ONE = "ranks that are started one by one, as torchrun and srun do, need the same --run_dir"


def is_started_by_rank_0() -> bool:
    """Whether Lightning has started this process from rank 0, which reports for it."""
    return _RUN_DIR in os.environ and not is_first_rank()


class TrainingRun:
    """A run that trains, as a context: its directory is kept from other processes until it is left.

    Args:
        parser, config: of the command; the config is kept in the run directory.

    Attributes:
        folder: the run directory, the same on every rank.

    Raises:
        ValueError: options of the trainer that cannot work (`check_options`), a directory that holds
            something else, one in use, or settings that would change the course of the run in it.
    """

    def __init__(self, parser: "ArgumentParser", config: "Namespace"):
        from bt_multimodal.training.random_state import seed_all

        check_options(config)
        self._parser, self._config = parser, config
        self._locked: RunFolder | None = None
        if is_first_rank():
            self.folder = Path(config.run_dir) if config.run_dir else new_folder(_name(config))
            os.environ[_RUN_DIR] = str(self.folder)
            self._locked = RunFolder(self.folder, new=not config.run_dir)
            try:
                self._look_at_what_is_there()
            except BaseException:
                self._locked.release()
                raise
            print(f"{'continues' if self._locked.continues else 'run directory:'} {self.folder}", flush=True)
        elif not config.run_dir and _RUN_DIR not in os.environ:
            raise ValueError(_ONE_BY_ONE)
        else:
            self.folder = Path(config.run_dir or os.environ[_RUN_DIR])
        seed_all(config.seed)

    def _look_at_what_is_there(self) -> None:
        import yaml

        assert self._locked is not None
        if not self._locked.continues:
            return
        kept = kept_config(self.folder / CONFIG)
        new = yaml.safe_load(self._parser.dump(self._config))
        defaults = self._parser.get_defaults().as_dict()
        check_settings(kept, new, defaults, extend=self._config.resume == "extend")
        if self._config.resume == "extend":
            lengths = [f"{key} {self._config.trainer[key]}" for key in ("max_epochs", "max_steps")]
            print(f"from here on the learning rate follows a schedule for {', '.join(lengths)}", flush=True)
        if "views" in self._config:
            measured(kept, self._config.views)

    def __enter__(self) -> "TrainingRun":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Stopped) and is_first_rank():
            saved = sorted((self.folder / CHECKPOINTS).glob("step=*.ckpt"))
            state = error.args[1] or (f"with {saved[-1]} saved" if saved else "before anything was saved")
            way = f"the same command with --run_dir {self.folder} continues"
            if not saved:
                way = "the same command starts again"
            error.args = error.number, f"{state}; {way}"
        if self._locked is not None:
            self._locked.release()
        os.environ.pop(_RUN_DIR, None)

    def trainer(self, ranks: "Ranks | None" = None, **options: Any) -> "pl.Trainer":
        """Lightning's trainer, whose run can be stopped and continued.

        Args:
            ranks: what the config says of several ranks, where the caller has made it already.
            options: of the trainer, beside and above the config's.
        """
        import lightning.pytorch as pl
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        from bt_multimodal.compat import leave_signals
        from bt_multimodal.training.ranks import Ranks
        from bt_multimodal.training.run_checkpoints import RunCheckpoints, SafeCheckpointIO

        config = self._config
        settings = {**config.trainer.as_dict(), **options, "sync_batchnorm": False}  # `Ranks` does it
        ranks = ranks or Ranks(config.rank_timeout, config.trainer.sync_batchnorm)
        saving = RunCheckpoints(
            self.folder / CHECKPOINTS,
            config.checkpoint,
            ranks.busy,
            on_begin=self._keep_config,
            extend=config.resume == "extend",
        )
        plugins: list[Any] = [SafeCheckpointIO()]
        if SLURMEnvironment.detect():
            plugins.append(SLURMEnvironment(auto_requeue=False))  # the run ends by a status of its own
        trainer = pl.Trainer(
            **{**settings, "callbacks": [ranks, *options.get("callbacks", []), saving]},
            plugins=plugins,
            default_root_dir=self.folder,
            logger=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        leave_signals(trainer)
        return trainer

    def _keep_config(self) -> None:
        """Write the config, when all that can fail before the first step is done."""
        text = self._parser.dump(self._config)
        write_safely(self.folder / CONFIG, lambda file: file.write(text.encode()))
        if not self._config.run_dir:
            link_latest(self.folder)

    def finish(self, comparison: "Comparison | None") -> int:
        """Keep and print the final table, and say where everything is; the exit status 0."""
        from bt_multimodal.evaluation.report import save_comparison

        if comparison is not None:
            save_comparison(self.folder, comparison)
            print(f"\n{comparison}", flush=True)
        print(f"\neverything is in {self.folder}")
        return 0


def _name(config: "Namespace") -> str:
    """The name of the config, by which runs without a directory of their own are sorted."""
    outside = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))
    if outside != "1" and {"RANK", "SLURM_PROCID"} & os.environ.keys():
        raise ValueError(_ONE_BY_ONE)
    return Path(str(config.config[-1])).stem if config.config else "run"


def train(trainer: "pl.Trainer", model: "pl.LightningModule", data: "pl.LightningDataModule") -> None:
    """Train with a trainer of `TrainingRun`, from the run's newest whole checkpoint, if it has any.

    Raises:
        ValueError: there are checkpoints, and none of them is whole.
    """
    import torch

    from bt_multimodal.training.random_state import seed_all
    from bt_multimodal.training.run_checkpoints import RunCheckpoints, newest_checkpoint

    saving = trainer.checkpoint_callback
    assert isinstance(saving, RunCheckpoints)
    if trainer.global_rank:  # in the state that all ranks are in they would drop the same units out
        seed_all((torch.initial_seed() + trainer.global_rank) % 2**63)
    saving.last = newest_checkpoint(saving.folder)
    trainer.fit(model, datamodule=data, ckpt_path=saving.last, weights_only=True)
