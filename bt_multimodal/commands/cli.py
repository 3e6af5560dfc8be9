"""How a command runs: its arguments, its messages and exit status, and the run directory of one that trains.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_multimodal.commands.config_errors import explain, last_line
from bt_multimodal.commands.config_files import with_config_paths
from bt_multimodal.commands.extras import missing_extra
from bt_multimodal.commands.help_page import page
from bt_multimodal.commands.keys import Keys, make_parser
from bt_multimodal.errors import TRY_AGAIN, StoppedError, TrainingFailedError
from bt_multimodal.safe_files import PARTIAL, write_safely

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.evaluation.report import Comparison
    from bt_multimodal.training.ranks import Ranks


_RUN_DIR = "BT_MULTIMODAL_RUN_DIR"
_CHECKPOINTS = "checkpoints"
_CONFIG = "config.yaml"
USAGE, FAILED = 2, 1  # exit statuses


def fail(message: str, status: int = USAGE) -> int:
    """Print one line on standard error and return the exit status."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return status


def arguments_of(argv: Sequence[str] | None) -> list[str]:
    """The arguments of a command, without the word ``fit``, which is optional before them.

    Args:
        argv: those of the process if ``None``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    return argv[1:] if argv[:1] == ["fit"] else argv


def plain_parser(doc: str) -> argparse.ArgumentParser:
    """An argparse parser whose help begins with ``doc`` as it is written; names are not abbreviated."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def guarded(extra: str, command: Callable[[], int]) -> int:
    """Run a command; what a user can do wrong becomes one line and an exit status.

    Args:
        extra: the extra of this package that brings what the command imports.

    Returns:
        What ``command`` returns; 2 for wrong usage, 1 for training that failed, `TRY_AGAIN` for a run that
        was stopped and can be continued.
    """
    sys.path.insert(0, os.getcwd())  # a user's own encoder, as `python -m` would find it
    try:
        return command()
    except StoppedError as error:
        if _is_first():
            print(f"{error}; the same command with this run_dir continues", file=sys.stderr)
        return TRY_AGAIN
    except TrainingFailedError as error:
        return fail(str(error), FAILED)
    except ModuleNotFoundError as error:
        message = missing_extra(error, extra)
        if message is None:
            raise
        return fail(message)
    except (ArgumentError, ValueError, OSError) as error:
        return fail(last_line(error))


def run_plain(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], int],
    extra: str,
) -> int:
    """Run a command whose arguments argparse reads; a bare command prints the parser's description.

    Args:
        parser: see `plain_parser`.
        argv: the arguments; those of the process if ``None``.
        run: does the work, and returns the exit status.
        extra: as in `guarded`.
    """
    argv = arguments_of(argv)
    if not argv:
        print((parser.description or "").strip())
        return 0
    arguments = parser.parse_args(argv)
    return guarded(extra, lambda: run(arguments))


def run_command(
    doc: str,
    argv: Sequence[str] | None,
    keys: Keys,
    run: "Callable[[ArgumentParser, Namespace], int]",
    modality: str,
) -> int:
    """Run a command whose keys jsonargparse reads: a config file and single keys.

    Args:
        doc: what the command does; a bare command prints it, and the help page begins with it.
        argv: the arguments; those of the process if ``None``.
        keys: the keys.
        run: does the work, and returns the exit status.
        modality: the folder of ``encoders`` whose encoders and augmentation sets the help page lists, and
            the extra that installs what they need.

    Returns:
        The exit status; see `guarded`.
    """
    argv = arguments_of(argv)
    if not argv:
        print(doc.strip())
        return 0
    if argv[0] in ("-h", "--help"):
        return _help(doc, keys, modality, argv[1:])
    if not argv[0].startswith("-"):
        return fail(f"unknown word {argv[0]!r}; keys begin with --, and --help lists them")

    def parse_and_run() -> int:
        warnings.filterwarnings("ignore", module=r"(lightning|jsonargparse|torch)\b.*")
        parser = make_parser(keys)
        from bt_multimodal.commands.memory import keep_freed_memory

        try:
            config = parser.parse_args(with_config_paths(argv))
        except (ArgumentError, TypeError, ValueError) as error:
            return fail(explain(parser, error))
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        keep_freed_memory()
        return run(parser, config)

    return guarded(modality, parse_and_run)


def _help(doc: str, keys: Keys, modality: str, names: Sequence[str]) -> int:
    try:
        print(page(doc, keys, modality, *names[:1]))
    except ValueError as error:
        return fail(str(error))
    return 0


def _is_first() -> bool:
    """Whether this process is rank 0, by what launchers tell it, or alone."""
    told = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in told if rank is not None), "0") == "0"


class TrainingRun:
    """A run that trains: its directory, its seed, its trainer, and what it leaves.

    Args:
        parser, config: of the command; the config is kept in the run directory.

    Attributes:
        folder: the run directory, the same on every rank.

    Raises:
        ValueError: a directory that holds something else than a run to continue.
    """

    def __init__(self, parser: "ArgumentParser", config: "Namespace"):
        from bt_multimodal.training.random_state import seed_all

        self._parser, self._config = parser, config
        self.folder = _choose_folder(config)
        seed_all(config.seed)

    def trainer(self, ranks: "Ranks | None" = None, **options: Any) -> "pl.Trainer":
        """Lightning's trainer, whose run can be stopped and continued; writes the config.

        Args:
            ranks: what the config says of several ranks, where the caller has made it already.
            options: of the trainer, beside and above the config's.

        Raises:
            ValueError: a strategy that shards the parameters.
        """
        import lightning.pytorch as pl
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        from bt_multimodal.training.ranks import Ranks
        from bt_multimodal.training.run_checkpoints import RunCheckpoints, SafeCheckpointIO

        config = self._config
        if str(config.trainer.strategy).startswith(("fsdp", "deepspeed")):
            raise ValueError(
                f"trainer.strategy {config.trainer.strategy} shards the weights, but the probes and the "
                "exported encoder need them whole: use ddp, or FSDP in a loop of your own (docs/scaling.md)"
            )
        settings = {**config.trainer.as_dict(), **options, "sync_batchnorm": False}  # `Ranks` does it
        ranks = ranks or Ranks(config.rank_timeout, config.trainer.sync_batchnorm)
        saving = RunCheckpoints(self.folder / _CHECKPOINTS, config.checkpoint, ranks.busy)
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
        self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            text = self._parser.dump(config)
            write_safely(self.folder / _CONFIG, lambda file: file.write(text.encode()))
        return trainer

    def finish(self, comparison: "Comparison | None") -> int:
        """Keep and print the final table, and say where everything is; the exit status 0."""
        from bt_multimodal.evaluation.report import save_comparison

        if comparison is not None:
            save_comparison(self.folder, comparison)
            print(f"\n{comparison}", flush=True)
        print(f"\neverything is in {self.folder}")
        return 0


def _choose_folder(config: "Namespace") -> Path:
    if config.run_dir:
        run = Path(config.run_dir)
    else:
        if "LOCAL_RANK" not in os.environ or _RUN_DIR not in os.environ:
            stem = Path(str(config.config[-1])).stem if config.config else "run"
            # Left for the ranks that Lightning starts by this command again.
            os.environ[_RUN_DIR] = f"runs/{stem}/{time.strftime('%Y%m%d-%H%M%S')}"
        run = Path(os.environ[_RUN_DIR])
    entries = {path.name for path in run.iterdir()} if run.is_dir() else set()
    if entries - {_CONFIG + PARTIAL} and _CONFIG not in entries:
        raise ValueError(f"{run} is not empty and holds no run to continue")
    return run


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
