"""What a run shows of itself: curves, a map of the features, a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bt_multimodal.features import FeatureTable
from bt_multimodal.probes import evaluate

_PANELS = (
    ("loss per dimension", ("loss", "invariance")),
    ("off-diagonal correlation (rms)", ("rms_off_diagonal",)),
    ("validation kNN (%)", ("knn",)),
    ("effective rank of the features", ("effective_rank",)),
    ("learning rate", ("lr",)),
)
_MAP_POINTS = 1000


def _columns(metrics: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Every metric's steps and values; a metric need not be there at every step."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    with metrics.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return columns


def plot_curves(metrics: Path, path: Path) -> None:
    """Draw the panels of ``metrics.csv`` that have data."""
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
    """t-SNE of up to 1,000 samples' features, coloured by label, before and after training."""
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n = len(before.labels)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:_MAP_POINTS]
    figure = Figure(figsize=(11, 5), layout="constrained")
    for i, (title, table) in enumerate((("before training", before), ("after training", after))):
        features = torch.nn.functional.normalize(table.features[chosen]).numpy()
        perplexity = min(30.0, max(1.0, (len(chosen) - 1) / 3))
        # Its OpenMP loops are short: on a busy machine several threads wait for each other for minutes.
        with threadpool_limits(1):
            points = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(features)
        labels = table.labels[chosen].numpy()
        axes = figure.add_subplot(1, 2, i + 1)
        for label, name in enumerate(table.classes[:20]):
            x, y = points[labels == label].T
            axes.scatter(x, y, s=8, label=name, color=f"C{label}" if label < 10 else None)
        axes.set(title=f"held-out samples, {title} (t-SNE)", xticks=[], yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=2)
    figure.savefig(path, dpi=110)


def compare(tables: Mapping[str, Sequence[FeatureTable]], unit: str, held_out: bool, **probes: Any) -> str:
    """The final table: what the probes say of several representations of the same data.

    Args:
        tables: by name, the features of the training and of the test split.
        unit: what the samples are called, plural.
        held_out: whether the test split was drawn from the training split.
        probes: options of `evaluate`.
    """
    train, test = next(iter(tables.values()))
    rows = {name: evaluate(train, test, **probes) for name, (train, test) in tables.items()}
    drawn = " (20 % held out)" if held_out else ""
    return f"{len(test.labels)} test {unit}{drawn}, {len(train.labels)} for the probes\n{format_table(rows)}"


def format_table(rows: Mapping[str, Mapping[str, tuple[float, float | None]]]) -> str:
    """Accuracies in per cent: a row per representation, a column per probe, mean +- std over draws."""
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    cells = [["accuracy in %", *columns]]
    for name, values in rows.items():
        texts = [name]
        for column in columns:
            mean, std = values.get(column, (float("nan"), None))
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
