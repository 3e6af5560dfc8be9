"""The command line of tasks that train linear SVMs on a frozen encoder, one a class.

Lightning has no part in it, and the rest is imported when there is something to do.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bt_multimodal.commands.cli import run_command
from bt_multimodal.evaluation.svm_probe import COSTS, check_targets, mean_average_precision, svm_probe

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


# Of a source, its training and its test split.
Open = Callable[[str, str, str], tuple[TargetedRecords, TargetedRecords]]


@dataclass
class DataOptions:
    """What to train and test on.

    Args:
        source: a folder in the layout of the PASCAL VOC devkit, such as VOCdevkit/VOC2007.
        train_split: its name.
        test_split: its name.
        batch_size: samples that go through the encoder at once.
    """

    source: str
    train_split: str = "trainval"
    test_split: str = "test"
    batch_size: int = 64


@dataclass
class SvmOptions:
    """How the SVMs are trained.

    Args:
        costs: to choose each class's C from.
        folds: of the cross-validation that chooses.
        difficult_as_absent: train on the difficult samples as negatives, as the published code does;
            otherwise they are left out, as they always are in testing.
    """

    costs: list[float] = field(default_factory=lambda: list(COSTS))
    folds: int = 3
    difficult_as_absent: bool = True


def svm_task(
    doc: str, modality: "Callable[[], tuple[Modality, Open]]", argv: Sequence[str] | None = None
) -> int:
    """Run an SVM task's command line; see `run_command`.

    Args:
        modality: a function giving the `Modality` and what opens a source (its imports wait).
    """
    return run_command(doc, argv, _parser, lambda parser, config: _fit(parser, config, *modality()))


def _parser() -> "ArgumentParser":
    from jsonargparse import ArgumentParser
    from torch import nn

    parser = ArgumentParser(exit_on_error=False, prog="fit", allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file; keys given after it win")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained weights and the solver")
    parser.add_argument(
        "--run_dir", type=str | None, default=None, help="where to keep the results, if given"
    )
    parser.add_argument("--encoder", type=str, required=True, help="run directory or encoder.safetensors")
    parser.add_argument(
        "--device", type=str, default="auto", help="of the encoder; auto: CUDA if there is one"
    )
    parser.add_subclass_arguments(nn.Module, "views", required=True)
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(SvmOptions, "svm")
    return parser


def _fit(parser: "ArgumentParser", config: "Namespace", modality: "Modality", open_splits: Open) -> int:
    import torch

    from bt_multimodal.commands.probe import representations
    from bt_multimodal.evaluation.report import Comparison, save_comparison

    run = Path(config.run_dir) if config.run_dir else None
    if run and run.is_dir() and any(run.iterdir()):
        raise ValueError(f"{run} is not empty")
    data, svm = config.data, config.svm
    train, test = open_splits(data.source, data.train_split, data.test_split)
    classes = train.records.classes
    check_targets(train.targets, "training", svm.folds, classes=classes)  # before long work
    check_targets(test.targets, "test", classes=classes)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(config.seed)
    tables = representations(
        config.encoder, (train.records, test.records), modality,
        device=device, views=parser.instantiate(config).views, batch_size=data.batch_size,
    )  # fmt: skip
    rows: dict[str, dict[str, tuple[float, float | None]]] = {}
    svms: dict[str, dict[str, Any]] = {}

    for name, (fitted, tested) in tables.items():
        targets = test.targets[tested.labels]  # damaged records are left out of both tables
        found = svm_probe(
            fitted.features, train.targets[fitted.labels], tested.features,
            svm.costs, svm.folds, config.seed, svm.difficult_as_absent, classes,
        )  # fmt: skip
        area, areas = mean_average_precision(found.scores, targets, classes=classes)
        eleven, elevens = mean_average_precision(found.scores, targets, True, classes)
        rows[name] = {"mAP": (100 * area, None), "mAP (11-point)": (100 * eleven, None)}
        columns = (100 * areas, 100 * elevens, found.costs, 100 * found.validation.max(1).values)
        keys = ("AP", "AP (11-point)", "C", "AP in cross-validation")
        figures = torch.stack(columns, dim=1).tolist()
        svms[name] = {of: dict(zip(keys, own, strict=True)) for of, own in zip(classes, figures, strict=True)}

    counts = [len(table.labels) for table in next(iter(tables.values()))]
    title = f"{counts[1]} test {modality.unit}, {counts[0]} for the SVMs of {len(classes)} classes"
    comparison = Comparison(title, rows, "average precision in %")
    print(comparison)
    if run:
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(parser.dump(config))
        (run / "svms.json").write_text(json.dumps(svms, indent=1) + "\n")
        save_comparison(run, comparison)
        print(f"\neverything is in {run}")
    return 0
