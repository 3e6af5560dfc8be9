"""Reports of a run: training curves, a map of the features, a table of probe results."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch

from bt_multimodal.data.progress import working
from bt_multimodal.evaluation.feature_map import families, groups, places
from bt_multimodal.evaluation.features import FeatureTable
from bt_multimodal.evaluation.figures import Figure, Rows
from bt_multimodal.evaluation.probes import evaluate, few_label_columns

_PANELS = (
    ("loss per dimension", ("loss", "invariance")),
    ("off-diagonal correlation (rms)", ("rms_off_diagonal",)),
    ("validation kNN (%)", ("knn",)),
    ("effective rank of the features", ("effective_rank",)),
    ("learning rate", ("lr",)),
)
_MAP_POINTS = 1000


def _columns(metrics: Path) -> dict[str, tuple[list[float], list[float]]]:
    """The steps and values of each metric; a metric may be missing at some steps."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    with metrics.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return columns


def plot_curves(metrics: Path, path: Path) -> None:
    """Plot the metrics of ``metrics.csv``, one panel for each group that has data."""
    from matplotlib.figure import Figure

    columns = _columns(metrics)
    panels = [(title, [n for n in names if n in columns]) for title, names in _PANELS]
    panels = [(title, names) for title, names in panels if names]
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for i, (title, names) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name in names:
            axes.plot(*columns[name], label=name, marker="." if len(columns[name][0]) < 30 else None)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    figure.savefig(path, dpi=110)


def plot_features(before: FeatureTable, after: FeatureTable, path: Path, seed: int = 0) -> None:
    """Plot a t-SNE of the features of up to 1,000 samples before and after training, coloured by label.

    Every sample is drawn, those without a label in grey; of more than 20 classes, the largest have a colour.
    """
    from matplotlib.figure import Figure

    n, count = len(before.labels), len(before.classes)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:_MAP_POINTS]
    figure = Figure(figsize=(11, 5), layout="constrained")
    drawn: list[Any] = []
    for i, (title, table) in enumerate((("before training", before), ("after training", after))):
        points = places(table.features[chosen], seed)
        lost = int(np.isnan(points[:, 0]).sum())
        axes = figure.add_subplot(1, 2, i + 1)
        parts = groups(table.labels[chosen].numpy(), table.classes)
        drawn = [axes.scatter(points[at, 0], points[at, 1], s=8, color=colour) for _, colour, at in parts]
        title = f"{len(chosen):,} held-out samples, {title} (t-SNE)"
        axes.set(title=title + (f", {lost} not finite" if lost else ""), xticks=[], yticks=[])
    # Matplotlib leaves names out that begin with _, and sets those with $ as formulas.
    legend = figure.legend(
        drawn, ["x"] * len(drawn), loc="outside right center", markerscale=2,
        title=f"{count} class{'es' * (count != 1)}", prop={"family": list(families()), "size": "small"},
    )  # fmt: skip
    for text, part in zip(legend.get_texts(), parts, strict=True):
        text.set_parse_math(False)
        text.set_text(part.name)
    figure.savefig(path, dpi=110)


class Comparison(NamedTuple):
    """Probe results of several representations.

    Attributes:
        title: the title of the table.
        rows: figures by representation and probe, mean and spread.
        measure: what the figures are.
        notes: what the table leaves out, and why.
    """

    title: str
    rows: Rows
    measure: str = "accuracy in %"
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        return "\n".join([self.title, format_table(self.rows, self.measure), *self.notes])


def compare(
    tables: Mapping[str, Sequence[FeatureTable]],
    unit: str,
    held_out: bool,
    baselines: Callable[..., Rows] | None = None,
    records: Sequence[int] | None = None,
    **probes: Any,
) -> Comparison:
    """The final table: probe results of several representations of the same data.

    Args:
        tables: the features of the training split and of the test split, by name.
        unit: the plural of a sample, such as ``"images"``.
        held_out: whether the test split was drawn from the training split.
        baselines: returns the rows of baselines with classifiers of their own, given options of `evaluate`.
        records: the number of records of both splits, damaged ones included.
        probes: options of `evaluate`; what cannot be drawn of ``per_class`` is left out, with a note.

    Raises:
        ValueError: as in `evaluate`.
    """
    train, test = next(iter(tables.values()))
    possible, notes = few_label_columns(train.labels, train.classes, probes.get("per_class", (10,)))
    probes = {**probes, "per_class": possible}
    # The probes come first, because they check the options.
    probed: Rows = {}
    for name, (train, test) in tables.items():
        with working(f"probing {name}"):
            probed[name] = evaluate(train, test, **probes)
    rows = {} if baselines is None else baselines(**{k: v for k, v in probes.items() if k != "mlp"})
    rows |= probed
    share = " (20 % held out)" if held_out else ""
    intact = [len(table.labels) for table in (train, test)]
    of_train, of_test = records or intact
    fitted, tested = counted(intact[0], of_train), counted(intact[1], of_test, f"test {unit}")
    return Comparison(f"{tested}{share}, {fitted} for the probes", rows, notes=notes)


def counted(intact: int, records: int, what: str = "") -> str:
    """A number of records in words; where some are damaged, ``96 of 97 test images (1 damaged)``."""
    name = f" {what}" if what else ""
    if intact == records:
        return f"{intact}{name}"
    return f"{intact} of {records}{name} ({records - intact} damaged)"


def check_empty(folder: Path) -> None:
    """Check that a folder is empty or does not exist.

    Raises:
        ValueError: the folder is not empty.
        OSError: it is not a folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty")


def save_comparison(run: Path, comparison: Comparison) -> None:
    """Write ``table.txt`` and, for `load_comparison`, ``table.json`` to a run's folder."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "table.txt").write_text(f"{comparison}\n", encoding="utf-8")
    (run / "table.json").write_text(json.dumps(comparison._asdict(), indent=1) + "\n", encoding="utf-8")


def load_comparison(run: Path) -> Comparison:
    """Load a comparison saved by `save_comparison`.

    Raises:
        ValueError: the folder has no table.
    """
    if not (run / "table.json").is_file():
        raise ValueError(f"{run} has no table.json: it is not a run, or the run has not ended")
    saved = json.loads((run / "table.json").read_text(encoding="utf-8"))
    rows = {
        name: {column: Figure(*figure) for column, figure in cells.items()}
        for name, cells in saved["rows"].items()
    }
    return Comparison(**{**saved, "rows": rows})


def spread(values: Sequence[float]) -> Figure:
    """Mean and sample standard deviation; the latter is ``None`` for a single value."""
    return Figure(mean(values), stdev(values) if len(values) > 1 else None)


def over_runs(paths: Sequence[Path]) -> Comparison:
    """Mean and sample standard deviation of each figure over several runs, such as seeds.

    Args:
        paths: folders of runs, saved by `save_comparison`.

    Raises:
        ValueError: fewer than two runs, a run without a table, or runs that measured different things.
    """
    if len(paths) < 2:
        raise ValueError(f"a spread needs 2 runs or more, got {len(paths)}")
    runs = [load_comparison(path) for path in paths]
    first = runs[0]
    for path, run in zip(paths, runs, strict=True):
        if run.title != first.title or [*map(list, run.rows.values())] != [*map(list, first.rows.values())]:
            raise ValueError(f"{path} measured something other than {paths[0]}: {run.title}; {first.title}")
    rows: Rows = {}
    for name, cells in first.rows.items():
        rows[name] = {column: spread([run.rows[name][column][0] for run in runs]) for column in cells}
    title = f"{first.title}; mean ± standard deviation of {len(runs)} runs"
    return first._replace(title=title, rows=rows)


def format_table(rows: Mapping[str, Mapping[str, Figure]], measure: str) -> str:
    """Figures in per cent as text: a row per representation, a column per probe, mean ± std over draws."""
    fullest_first = sorted(rows.values(), key=len, reverse=True)
    columns = list(dict.fromkeys(name for cells in fullest_first for name in cells))
    cells = [[measure, *columns]]
    for name, values in rows.items():
        texts = [name]
        for column in columns:
            if column not in values:
                texts.append("")
                continue
            mean, std = values[column]
            texts.append(f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}")
        cells.append(texts)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
