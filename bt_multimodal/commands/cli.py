"""What the command lines of all tasks that train share.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bt_multimodal.commands.config_errors import explain, last_line
from bt_multimodal.errors import TRY_AGAIN, StoppedError, TrainingFailedError
from bt_multimodal.safe_files import PARTIAL, write_safely

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.training.ranks import Ranks


_RUN_DIR = "BT_MULTIMODAL_RUN_DIR"
_CHECKPOINTS = "checkpoints"
_CONFIG = "config.yaml"


def fail(message: str) -> int:
    """Print one line and give the exit status of wrong usage."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def base_parser() -> "ArgumentParser":
    """The keys that every task that trains has: config, seed, run directory, Lightning's trainer."""
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser

    from bt_multimodal.training.run_checkpoints import CheckpointOptions

    parser = ArgumentParser(exit_on_error=False, prog="fit", allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file; keys given after it win")
    parser.add_argument("--seed", type=int, default=0, help="of weights, views and batch order")
    parser.add_argument("--run_dir", type=str | None, default=None, help="default: runs/<config>/<time>")
    own = {
        "accumulate_grad_batches", "callbacks", "default_root_dir", "enable_checkpointing",
        "enable_model_summary", "enable_progress_bar", "logger", "plugins",
        "reload_dataloaders_every_n_epochs", "use_distributed_sampler", "overfit_batches",
    }  # fmt: skip
    parser.add_class_arguments(pl.Trainer, "trainer", skip=own, instantiate=False)
    parser.set_defaults({"trainer.sync_batchnorm": True})
    parser.add_class_arguments(CheckpointOptions, "checkpoint")
    parser.add_argument(
        "--rank_timeout", type=float, default=600, help="seconds until a silent rank ends the run"
    )
    return parser


def add_encoder(parser: "ArgumentParser") -> None:
    """The keys of a task that starts from an exported encoder."""
    parser.add_argument("--encoder", type=str, required=True, help="run directory or encoder.safetensors")
    parser.add_argument(
        "--fresh", type=bool, default=False, help="with fresh weights: the untrained baseline"
    )


def choose_run_dir(config: "Namespace") -> Path:
    """The run's directory, the same on every rank.

    Raises:
        ValueError: one that holds something else than a run to continue.
    """
    if config.run_dir:
        run = Path(config.run_dir)
    else:
        if "LOCAL_RANK" not in os.environ or _RUN_DIR not in os.environ:
            stem = Path(str(config.config[-1])).stem if config.config else "run"
            # Left for the ranks that Lightning starts by this command again.
            os.environ[_RUN_DIR] = f"runs/{stem}/{time.strftime('%Y%m%d-%H%M%S')}"
        run = Path(os.environ[_RUN_DIR])
    there = {path.name for path in run.iterdir()} if run.is_dir() else set()
    if there - {_CONFIG + PARTIAL} and _CONFIG not in there:
        raise ValueError(f"{run} is not empty and holds no run to continue")
    return run


def make_trainer(
    parser: "ArgumentParser",
    config: "Namespace",
    run: Path,
    ranks: "Ranks | None" = None,
    **options: Any,
) -> "pl.Trainer":
    """Lightning's trainer, whose run can be stopped and continued, and the run directory with its config.

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

    if str(config.trainer.strategy).startswith(("fsdp", "deepspeed")):
        raise ValueError(
            f"trainer.strategy {config.trainer.strategy} cuts the weights up; the probes and the exported "
            "encoder need them whole: use ddp, or FSDP in a loop of your own (docs/scaling.md)"
        )
    settings = {**config.trainer.as_dict(), **options, "sync_batchnorm": False}  # `Ranks` does it
    ranks = ranks or Ranks(config.rank_timeout, config.trainer.sync_batchnorm)
    saving = RunCheckpoints(run / _CHECKPOINTS, config.checkpoint, ranks.busy)
    plugins: list[Any] = [SafeCheckpointIO()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # the run ends by a status of its own
    trainer = pl.Trainer(
        **{**settings, "callbacks": [ranks, *options.get("callbacks", []), saving]},
        plugins=plugins,
        default_root_dir=run,
        logger=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    run.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        text = parser.dump(config)
        write_safely(run / _CONFIG, lambda file: file.write(text.encode()))
    return trainer


def train(trainer: "pl.Trainer", model: "pl.LightningModule", data: "pl.LightningDataModule") -> None:
    """Train with a trainer of `make_trainer`, from the run's newest checkpoint that is whole, if it has any.

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


def run_command(
    doc: str,
    argv: Sequence[str] | None,
    make_parser: "Callable[[], ArgumentParser]",
    fit: "Callable[[ArgumentParser, Namespace], int]",
) -> int:
    """Run the command line of a task that trains: ``fit`` and its keys.

    Args:
        doc: the task's docstring: what a bare command and ``--help`` print.
        argv: arguments after the script's name; those of the process if ``None``.
        make_parser: the parser of the keys.
        fit: what to do with them.

    Returns:
        The exit status: 0; after one line on standard error 2 for wrong usage, 1 for training that
        failed, `TRY_AGAIN` for a run that was stopped and can be continued.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(doc.strip())
        return 0
    if argv[0] != "fit":
        return fail(f"unknown command {argv[0]!r}; the command is: fit")
    sys.path.insert(0, os.getcwd())  # a user's own encoder, as `python -m` would find it
    warnings.filterwarnings("ignore", module=r"(lightning|jsonargparse|torch)\b.*")
    parser = make_parser()
    from jsonargparse import ArgumentError

    from bt_multimodal.commands.memory import keep_freed_memory

    try:
        config = parser.parse_args(argv[1:])
    except (ArgumentError, TypeError, ValueError) as error:
        return fail(explain(parser, error))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_freed_memory()
    try:
        return fit(parser, config)
    except StoppedError as error:
        if _is_first():
            print(f"{error}; the same command with this run_dir continues", file=sys.stderr)
        return TRY_AGAIN
    except TrainingFailedError as error:
        return fail(str(error)) - 1
    except (ArgumentError, ValueError, OSError) as error:
        return fail(last_line(error))


def _is_first() -> bool:
    """Whether this process is rank 0, by what launchers tell it, or alone."""
    told = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in told if rank is not None), "0") == "0"
