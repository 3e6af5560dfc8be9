"""The command line that the pretraining tasks share.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import difflib
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bt_multimodal.errors import TRY_AGAIN, StoppedError, TrainingFailedError
from bt_multimodal.safe_files import PARTIAL, write_safely

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.data import Modality
    from bt_multimodal.ranks import Ranks


_RUN_DIR = "BT_MULTIMODAL_RUN_DIR"
_CHECKPOINTS = "checkpoints"
_CONFIG = "config.yaml"


@dataclass
class ProbeOptions:
    """How the final table is made and how often the online probe looks.

    Args:
        every: epochs between two looks of the online probe.
        table: whether to extract all features and make the final table and the map of the features
            (too much for data that do not fit memory).
        linear: whether the final table has a linear probe on all labels (slow on wide raw data).
        per_class: labels a class in the few-label columns, 5 draws each.
        on_collapse: what representations that collapse do to the run: ``"end"`` or ``"warn"``.
    """

    every: int = 1
    table: bool = True
    linear: bool = True
    per_class: list[int] = field(default_factory=lambda: [10])
    on_collapse: Literal["end", "warn"] = "end"


def fail(message: str) -> int:
    """Print one line and give the exit status of wrong usage."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


# How jsonargparse says that it does not know a key: of the whole command, of a group, of a class.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[\w.]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'"),
)
# One that fits none of several types: what was wrong with the class that was asked for.
_UNION = re.compile(
    r'Parser key "(?P<key>[\w.]+)": .*?Does not validate against any of the Union subtypes.*?'
    r"Problem with given class_path '(?P<path>[^']+)': "
    r"(?P<problem>.+?)(?: - (?:Problem|Expected)| Given value type)"
)
# A plain value that fits none of them.
_VALUE = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Does not validate against any of the Union subtypes '
    r"Subtypes: \[(?P<types>[^:]+)\] Errors: - Expected.*? Given value: (?P<value>.+?)(?= - Expected a |$)"
)
# A class that refuses its arguments where ``None`` might have stood: what it said.
_REFUSED = re.compile(r"Union subtypes\n.*\nErrors:\n  - ((?s:.+?))\n  - Expected a <class 'NoneType'>\n")
_UNKNOWN_ARGUMENT = re.compile(r"(?:Option|Key) '[\w.]+' is not (?:accepted|expected)")


def _explain(parser: "ArgumentParser", error: Exception) -> str:
    """jsonargparse's message on one line, with the nearest right key for one it does not know."""
    text = " ".join(str(error).split())
    if "accumulate_grad_batches" in text:
        return (
            "accumulate_grad_batches would average small correlation matrices, which is another objective; "
            "model.accumulate takes the exact loss of a batch in micro-batches"
        )
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = _VALUE.sub(r"\g<key> takes \g<types>, not \g<value>", text)
    if found := _UNION.search(text):
        text = "{key}: {path}: {problem}".format(**found.groupdict())
    for pattern in _UNKNOWN:
        if found := pattern.search(text):
            key = ".".join(found.groupdict().values())
            keys = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{text}; fit --help lists the keys" if _UNKNOWN_ARGUMENT.search(text) else text


def _parser() -> "ArgumentParser":
    from torch import nn

    from bt_multimodal.datamodule import TwinData
    from bt_multimodal.pretraining import Pretraining

    parser = base_parser()
    parser.add_subclass_arguments(nn.Module, "views", required=True)
    parser.add_class_arguments(Pretraining, "model", skip={"views"}, instantiate=False)
    parser.add_class_arguments(TwinData, "data", skip={"views", "modality", "seed"}, instantiate=False)
    parser.add_class_arguments(ProbeOptions, "probe")
    return parser


def base_parser() -> "ArgumentParser":
    """The keys that every task that trains has: config, seed, run directory, Lightning's trainer."""
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser

    from bt_multimodal.run_checkpoints import CheckpointOptions

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

    from bt_multimodal.ranks import Ranks
    from bt_multimodal.run_checkpoints import RunCheckpoints, SafeCheckpointIO

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

    from bt_multimodal.random_state import seed_all
    from bt_multimodal.run_checkpoints import RunCheckpoints, newest_checkpoint

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

    from bt_multimodal.memory import keep_freed_memory

    try:
        config = parser.parse_args(argv[1:])
    except (ArgumentError, TypeError, ValueError) as error:
        return fail(_explain(parser, error))
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
        return fail(_last_line(error))


def pretrain(doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None) -> int:
    """Run a pretraining task's command line; see `run_command`.

    Args:
        modality: a function giving the `Modality` (its imports wait until they are needed).
    """
    return run_command(doc, argv, _parser, lambda parser, config: _fit(parser, config, modality()))


def _is_first() -> bool:
    """Whether this process is rank 0, by what launchers tell it, or alone."""
    told = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in told if rank is not None), "0") == "0"


def _last_line(error: Exception) -> str:
    if found := _REFUSED.search(str(error)):
        return found[1]
    # An error from a loader's worker arrives as its whole traceback.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else " ".join(lines)


def _spec(config: Any, made: Any) -> dict[str, Any]:
    """What `checkpoint.build` takes: a config's class and arguments, and what it can do without files."""
    arguments = config.init_args.as_dict() if "init_args" in config else {}
    return {"class_path": config.class_path, "init_args": arguments | getattr(made, "portable", {})}


def _fit(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    from bt_multimodal.callbacks import CollapseWatch, MetricsFile, OnlineProbe, Watch
    from bt_multimodal.checkpoint import export_encoder
    from bt_multimodal.datamodule import TwinData
    from bt_multimodal.features import FeatureTable, extract_features
    from bt_multimodal.pretraining import Pretraining, check_first_batch
    from bt_multimodal.random_state import seed_all
    from bt_multimodal.ranks import Ranks
    from bt_multimodal.report import compare, plot_curves, plot_features, save_comparison

    run = choose_run_dir(config)
    seed_all(config.seed)
    parts = parser.instantiate(config)
    model = Pretraining(views=parts.views, **parts.model.as_dict())
    data = TwinData(views=parts.views, modality=modality, seed=config.seed, **config.data.as_dict())
    if hasattr(parts.views, "measure"):  # what it measures is kept with the run and the encoder
        for name, value in parts.views.measure(data.train).items():
            config.views.init_args[name] = value
    loader = data.train_dataloader()
    model.build_optimizer(data.batch_size)  # refuses rates that do not fit, before long work
    model.schedule_steps(len(loader), config.trainer.max_epochs or 1)
    check_first_batch(model, parts.views, next(iter(loader)))

    ranks = Ranks(config.rank_timeout, config.trainer.sync_batchnorm)
    metrics = MetricsFile(run / "metrics.csv")
    watching = [
        Watch(metrics, modality.unit),
        CollapseWatch(end=config.probe.on_collapse == "end"),
        OnlineProbe(metrics, config.probe.every, busy=ranks.busy),
    ]
    trainer = make_trainer(parser, config, run, ranks, callbacks=watching, enable_progress_bar=False)
    encoder = model.twins.encoder

    both = (data.train_full, data.test)

    def features() -> list[FeatureTable]:
        return [extract_features(encoder, data.views, part, device=model.device) for part in both]

    before = features() if trainer.is_global_zero and data.labelled and config.probe.table else None
    train(trainer, model, data)
    if not trainer.is_global_zero:
        return 0
    specs = _spec(config.model.encoder, encoder), _spec(config.views, data.views)
    export_encoder(run / "encoder.safetensors", encoder, *specs)
    plot_curves(run / "metrics.csv", run / "curves.png")
    if before is not None:
        after = features()
        raw = modality.raw_tables(data.views, both)
        comparison = compare(
            {**raw, "untrained encoder": before, "trained encoder": after},
            modality.unit, data.test_is_held_out,
            modality.baselines and partial(modality.baselines, *both, model.twins.encoder.features_dim),
            per_class=config.probe.per_class, seed=config.seed, linear=config.probe.linear,
        )  # fmt: skip
        save_comparison(run, comparison)
        print(f"\n{comparison}", flush=True)
        plot_features(before[1], after[1], run / "features.png")
    print(f"\neverything is in {run}")
    return 0
