"""The command that pretrains an encoder.

Nothing heavy is imported until there is something to do: Lightning alone takes many seconds.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bt_multimodal.commands.cli import run_command
from bt_multimodal.commands.config_errors import building
from bt_multimodal.commands.keys import AUGMENTATIONS, TRAINING, Group, Keys
from bt_multimodal.commands.training_run import TrainingRun, train

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from bt_multimodal.evaluation.report import Comparison
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

    Raises:
        ValueError: a number that is out of range.
    """

    every: int = 1
    table: bool = True
    linear: bool = True
    per_class: list[int] = field(default_factory=lambda: [10])
    on_collapse: Literal["end", "warn"] = "end"

    def __post_init__(self) -> None:
        if self.every < 1 or any(number < 1 for number in self.per_class):
            raise ValueError(
                f"probe needs every >= 1 and per_class >= 1; got {self.every} and {self.per_class}"
            )


KEYS: Keys = (
    *TRAINING,
    AUGMENTATIONS,
    Group(
        "model",
        "bt_multimodal.training.pretraining.Pretraining",
        "the twins and their optimisation",
        skip=frozenset({"augmentations"}),
    ),
    Group(
        "data",
        "bt_multimodal.training.pretraining_data.PretrainingData",
        "what to train on",
        skip=frozenset({"augmentations", "modality", "seed", "run"}),
    ),
    Group(
        "probe",
        "bt_multimodal.commands.pretrain.ProbeOptions",
        "how the encoder is measured",
        instantiate=True,
    ),
)


def pretrain(
    doc: str, modality: "Callable[[], Modality]", argv: Sequence[str] | None = None, name: str = "train"
) -> int:
    """Run a pretraining command; see `run_command`.

    Args:
        modality: returns the `Modality` (its imports wait until they are needed).
        name: the folder of ``encoders`` with the modality's encoders, and its extra.
    """
    return run_command(doc, argv, KEYS, lambda parser, config: _pretrain(parser, config, modality()), name)


def spec_of(config: Any, built: Any) -> dict[str, Any]:
    """What `encoder_file.build` takes: a config's class and its arguments, without files of this machine."""
    arguments = config.init_args.as_dict() if "init_args" in config else {}
    return {"class_path": config.class_path, "init_args": arguments | getattr(built, "portable", {})}


def _pretrain(parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    with TrainingRun(parser, config) as run:
        return _train(run, parser, config, modality)


def _train(run: TrainingRun, parser: "ArgumentParser", config: "Namespace", modality: "Modality") -> int:
    from bt_multimodal.augmentation_set import check_members, completed
    from bt_multimodal.data.progress import working
    from bt_multimodal.data.sources.summary import say
    from bt_multimodal.encoder_file import INITIAL, export_encoder
    from bt_multimodal.evaluation.features import FeatureTable, extract_features, raw_tables
    from bt_multimodal.evaluation.probes import few_label_columns
    from bt_multimodal.evaluation.report import compare, plot_curves, plot_features
    from bt_multimodal.training.callbacks import CollapseWatch, MetricsFile, OnlineProbe, Watch
    from bt_multimodal.training.first_look import check_augmentations, check_first_batch
    from bt_multimodal.training.place import epoch_length, run_length
    from bt_multimodal.training.pretraining import Pretraining
    from bt_multimodal.training.pretraining_data import PretrainingData
    from bt_multimodal.training.ranks import Ranks

    with building():
        parts = parser.instantiate(config)
    check_members(parts.views)
    augmentations = completed(parts.views)
    model = Pretraining(augmentations, **parts.model.as_dict())
    data = PretrainingData(augmentations, modality, config.seed, **config.data.as_dict(), run=run.folder)
    samples = data.samples
    for name, value in augmentations.measure(samples.train).items():
        config.views.init_args[name] = value  # kept with the run and the encoder

    ranks = Ranks(config.rank_timeout, config.trainer.sync_batchnorm)
    metrics = MetricsFile(run.folder / "metrics.csv")
    watching = [
        Watch(metrics, modality.unit),
        CollapseWatch(end=config.probe.on_collapse == "end"),
        OnlineProbe(metrics, augmentations, config.seed, config.probe.every, busy=ranks.busy),
    ]
    trainer = run.trainer(ranks, callbacks=watching, enable_progress_bar=False)
    steps = epoch_length(trainer, samples.steps)
    with working("trying the first batch"):
        check_augmentations(augmentations, samples.train)
        model.prepare(data.batch_size, steps, run_length(trainer, samples.steps))
        check_first_batch(model, augmentations, samples.first_batch(), samples.train)
    say(data.found)  # after the checks: an error is one line
    data.tolerance.begin()  # what could be refused has not been

    encoder = model.twins.encoder
    both = (samples.train_full.labelled(), samples.test)  # the map shows unlabelled test records as well
    specs = spec_of(config.model.encoder, encoder), spec_of(config.views, augmentations)
    table = trainer.is_global_zero and data.labelled and config.probe.table
    if trainer.is_global_zero and not (run.folder / INITIAL).exists():
        export_encoder(run.folder / INITIAL, encoder, *specs)
    if table:
        records = both[0].records
        for note in few_label_columns(records.labels, records.classes, config.probe.per_class)[1]:
            warnings.warn(f"the final table has no column {note}", stacklevel=1)

    def features() -> list[FeatureTable]:
        return [extract_features(encoder, augmentations, part, device=model.device) for part in both]

    before = features() if table else None
    train(trainer, model, data)
    if not trainer.is_global_zero:
        return 0
    export_encoder(run.folder / "encoder.safetensors", encoder, *specs)
    plot_curves(run.folder / "metrics.csv", run.folder / "curves.png")
    comparison: Comparison | None = None
    if before is not None:
        after = features()
        tested = (both[0], samples.test.labelled())
        records_of_both = [part.records for part in tested]
        comparison = compare(
            {
                **raw_tables(modality, augmentations, tested),
                "untrained encoder": [table.labelled() for table in before],
                "trained encoder": [table.labelled() for table in after],
            },
            modality.unit, samples.test_is_held_out,
            modality.baselines and partial(modality.baselines, *records_of_both, encoder.features_dim),
            per_class=config.probe.per_class, seed=config.seed, linear=config.probe.linear,
            records=[len(part) for part in tested],
        )  # fmt: skip
        plot_features(before[1], after[1], run.folder / "features.png")
    return run.finish(comparison)
