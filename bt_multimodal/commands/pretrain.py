"""The command line of tasks that pretrain an encoder.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bt_multimodal.commands.cli import base_parser, choose_run_dir, make_trainer, run_command, train

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.modality import Modality


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


def pretrain(doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None) -> int:
    """Run a pretraining task's command line; see `run_command`.

    Args:
        modality: a function giving the `Modality` (its imports wait until they are needed).
    """
    return run_command(doc, argv, _parser, lambda parser, config: _fit(parser, config, modality()))


def _parser() -> "ArgumentParser":
    from torch import nn

    from bt_multimodal.training.pretraining import Pretraining
    from bt_multimodal.training.pretraining_data import TwinData

    parser = base_parser()
    parser.add_subclass_arguments(nn.Module, "views", required=True)
    parser.add_class_arguments(Pretraining, "model", skip={"views"}, instantiate=False)
    parser.add_class_arguments(TwinData, "data", skip={"views", "modality", "seed"}, instantiate=False)
    parser.add_class_arguments(ProbeOptions, "probe")
    return parser


def _spec(config: Any, made: Any) -> dict[str, Any]:
    """What `checkpoint.build` takes: a config's class and arguments, and what it can do without files."""
    arguments = config.init_args.as_dict() if "init_args" in config else {}
    return {"class_path": config.class_path, "init_args": arguments | getattr(made, "portable", {})}


def _fit(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    from bt_multimodal.encoder_file import export_encoder
    from bt_multimodal.evaluation.features import FeatureTable, extract_features, raw_tables
    from bt_multimodal.evaluation.report import compare, plot_curves, plot_features, save_comparison
    from bt_multimodal.training.callbacks import CollapseWatch, MetricsFile, OnlineProbe, Watch
    from bt_multimodal.training.pretraining import Pretraining, check_first_batch
    from bt_multimodal.training.pretraining_data import TwinData
    from bt_multimodal.training.random_state import seed_all
    from bt_multimodal.training.ranks import Ranks

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
        raw = raw_tables(modality, data.views, both)
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
