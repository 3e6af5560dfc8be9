"""The command that trains linear SVMs on a frozen encoder, one a class.

Lightning has no part in it, and the rest is imported when there is something to do.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bt_multimodal.commands.cli import run_command
from bt_multimodal.commands.keys import AUGMENTATIONS, ENCODER, TRUST, Group, Key, Keys

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from torch import Tensor

    from bt_multimodal.data.records import Records
    from bt_multimodal.modality import Modality


class TargetedRecords(Protocol):
    """Records whose labels are their rows in ``targets [N, K]`` (`bt_multimodal.evaluation.svm_probe`)."""

    @property
    def records(self) -> "Records": ...
    @property
    def targets(self) -> "Tensor": ...


# (source, training split, test split) -> the records of both
Open = Callable[[str, str, str], tuple[TargetedRecords, TargetedRecords]]


@dataclass
class DataOptions:
    """What to train and test on.

    Args:
        source: a folder in the layout of the PASCAL VOC devkit, such as VOCdevkit/VOC2007.
        train_split: its name.
        test_split: its name.
        batch_size: samples that go through the encoder at once.
        damaged_share: the share of the records that may be damaged; more end the run.
        damaged_least: the number that may be damaged whatever their share, if they are at most half.
    """

    source: str
    train_split: str = "trainval"
    test_split: str = "test"
    batch_size: int = 64
    damaged_share: float = 0.01
    damaged_least: int = 5


def _published_costs() -> list[float]:
    from bt_multimodal.evaluation.svm_probe import COSTS

    return list(COSTS)


@dataclass
class SvmOptions:
    """How the SVMs are trained.

    Args:
        costs: to choose each class's C from.
        folds: of the cross-validation that chooses.
        difficult_as_absent: train on the difficult samples as negatives, as the published code does;
            otherwise they are left out, as they always are in testing.
    """

    costs: list[float] = field(default_factory=_published_costs)
    folds: int = 3
    difficult_as_absent: bool = True


KEYS: Keys = (
    Key("seed", "seed of the untrained weights and the solver", int, 0),
    Key("run_dir", "where to keep the results, if given", str | None),
    ENCODER[0],
    TRUST,
    Key("device", "of the encoder; auto: CUDA if there is one", str, "auto"),
    AUGMENTATIONS,
    Group("data", "bt_multimodal.commands.svm.DataOptions", "what to train and test on", instantiate=True),
    Group("svm", "bt_multimodal.commands.svm.SvmOptions", "how the SVMs are trained", instantiate=True),
)


def svm(
    doc: str,
    modality: "Callable[[], tuple[Modality, Open]]",
    argv: Sequence[str] | None = None,
    name: str = "train",
) -> int:
    """Run an SVM command; see `run_command`.

    Args:
        modality: returns the `Modality` and what opens a source (its imports wait).
        name: the folder of ``encoders`` with the modality's encoders, and its extra.
    """
    return run_command(doc, argv, KEYS, lambda parser, config: _svm(parser, config, *modality()), name)


def _svm(parser: "ArgumentParser", config: "Namespace", modality: "Modality", open_splits: Open) -> int:
    import torch

    from bt_multimodal.commands.probe import representations
    from bt_multimodal.data.damage import tolerance
    from bt_multimodal.evaluation.figures import Figure, Rows
    from bt_multimodal.evaluation.report import Comparison, check_empty, counted, save_comparison
    from bt_multimodal.evaluation.svm_probe import check_targets, mean_average_precision, svm_probe

    run = Path(config.run_dir) if config.run_dir else None
    if run:
        check_empty(run)
    data, svm = config.data, config.svm
    tolerated = tolerance(data.damaged_share, data.damaged_least, run)
    train, test = open_splits(data.source, data.train_split, data.test_split)
    classes = train.records.classes
    check_targets(train.targets, "training", svm.folds, classes=classes)  # before long work
    check_targets(test.targets, "test", classes=classes)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(config.seed)
    tables = representations(
        config.encoder, (train.records, test.records), modality, trust=config.trust,
        device=device, augmentations=parser.instantiate(config).views, batch_size=data.batch_size,
        tolerance=tolerated,
    )  # fmt: skip
    rows: Rows = {}
    svms: dict[str, dict[str, Any]] = {}

    for name, (fitted, tested) in tables.items():
        targets = test.targets[tested.labels]  # damaged records are left out of both tables
        found = svm_probe(
            fitted.features, train.targets[fitted.labels], tested.features,
            svm.costs, svm.folds, config.seed, svm.difficult_as_absent, classes,
        )  # fmt: skip
        area, areas = mean_average_precision(found.scores, targets, classes=classes)
        eleven, elevens = mean_average_precision(found.scores, targets, True, classes)
        rows[name] = {"mAP": Figure(100 * area), "mAP (11-point)": Figure(100 * eleven)}
        columns = (100 * areas, 100 * elevens, found.costs, 100 * found.validation.max(1).values)
        keys = ("AP", "AP (11-point)", "C", "AP in cross-validation")
        figures = torch.stack(columns, dim=1).tolist()
        svms[name] = {of: dict(zip(keys, own, strict=True)) for of, own in zip(classes, figures, strict=True)}

    counts = [len(table.labels) for table in next(iter(tables.values()))]
    tests = counted(counts[1], len(test.records), f"test {modality.unit}")
    title = f"{tests}, {counted(counts[0], len(train.records))} for the SVMs of {len(classes)} classes"
    comparison = Comparison(title, rows, "average precision in %")
    print(comparison)
    if run:
        run.mkdir(parents=True, exist_ok=True)
        tolerated.begin()
        (run / "config.yaml").write_text(parser.dump(config), encoding="utf-8")
        (run / "svms.json").write_text(json.dumps(svms, indent=1) + "\n", encoding="utf-8")
        save_comparison(run, comparison)
        print(f"\neverything is in {run}")
    return 0
