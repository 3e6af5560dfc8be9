"""Sweeps: pretraining runs that each differ from a base config in one ablation, and a table of them all.

An ablation is a YAML file that overrides keys of the base config. Published results are in a CSV file
in the same folder (`read_published`).
"""

import contextlib
import csv
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bt_multimodal.errors import Stopped

if TYPE_CHECKING:
    from bt_multimodal.evaluation.report import Comparison
    from bt_multimodal.modality import Modality

BASELINE = "baseline"


class Run(NamedTuple):
    """One run of a sweep."""

    name: str  # name of the ablation
    seed: int
    argv: list[str]  # arguments of the pretraining task
    folder: Path
    raw: bool = False  # whether to probe the raw features too
    untrained: bool = False  # whether to probe the encoder with fresh weights too

    @property
    def ended(self) -> bool:
        """Whether the run has its table."""
        return (self.folder / "table.json").is_file()


def read_published(path: Path) -> dict[str, float]:
    """Published top-1 accuracies in per cent by ablation, from a CSV file ``ablation,top_1``.

    Raises:
        ValueError: a column is missing, or a cell is not a number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {row["ablation"]: float(row["top_1"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} needs the columns ablation and top_1, a number: {error}") from error


def plan(
    base: Path, ablations: Sequence[Path], seeds: Sequence[int], out: Path, overrides: Sequence[str] = ()
) -> list[Run]:
    """The runs of a sweep; those of the base config come first.

    Args:
        base: a config of a pretraining task.
        ablations: configs that override it, one for each row of the table.
        seeds: the seeds of each row.
        out: the runs are in ``out/NAME/seedN``.
        overrides: further keys of the pretraining task for every run; ablations take precedence.

    Raises:
        ValueError: a file does not exist, or two files have the same name.
    """
    for path in (base, *ablations):
        if not path.is_file():
            raise ValueError(f"there is no config {str(path)!r}")
    names = [BASELINE, *(path.stem for path in ablations)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"several ablations are called {sorted(twice)}")
    runs = []
    ablation_argv: list[list[str]] = [[], *(["--config", str(path)] for path in ablations)]
    for name, ablation in zip(names, ablation_argv, strict=True):
        for seed in seeds:
            folder = out / name / f"seed{seed}"
            argv = ["fit", "--config", str(base), *overrides, *ablation]
            argv += ["--seed", str(seed), "--probe.table", "false", "--run_dir", str(folder)]
            argv += ["--probe.on_collapse", "warn"]  # the result of a worse loss is of interest too
            baseline = not ablation
            runs.append(Run(name, seed, argv, folder, raw=baseline and seed == seeds[0], untrained=baseline))
    return runs


def perform(run: Run, modality: "Callable[[], Modality]", threads: int) -> str | None:
    """Train a run, probe it on the test split and write ``table.json``; output goes to ``FOLDER.log``.

    Returns:
        ``None``, or what went wrong.
    """
    import torch

    from bt_multimodal.commands.pretrain import pretrain

    torch.set_num_threads(threads)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    log = run.folder.with_suffix(".log")
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        if pretrain("", modality, run.argv):
            file.flush()
            return next(
                (
                    line
                    for line in reversed(log.read_text(encoding="utf-8").splitlines())
                    if line.startswith(("error:", "stopped by"))
                ),
                str(log),
            )
        try:
            _measure(run, modality())
        except (ValueError, RuntimeError) as error:  # such as features that are not finite
            return str(error)
    return None


def _measure(run: Run, modality: "Modality") -> None:
    import torch
    import yaml

    from bt_multimodal.commands.probe import representations
    from bt_multimodal.data.damage import Tolerance
    from bt_multimodal.data.records import open_source
    from bt_multimodal.evaluation.report import compare, save_comparison

    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    data = config["data"]
    # The run has just used this code.
    used = [part["class_path"].partition(".")[0] for part in (config["model"]["encoder"], config["views"])]
    keys = ("source", "content_column", "label_column", "train_split", "test_split")
    splits = open_source(modality=modality, **{key: data.get(key) for key in keys}, require_labels=True)
    torch.manual_seed(run.seed)
    tolerated = Tolerance(data.get("damaged_share", 0.01), data.get("damaged_least", 5))
    tables = representations(
        run.folder,
        (splits.train, splits.test),
        modality,
        run.raw,
        run.untrained,
        tolerance=tolerated,
        trust=used,
    )
    counts = (len(splits.train), len(splits.test))
    save_comparison(
        run.folder,
        compare(tables, modality.unit, splits.held_out, records=counts, per_class=[], seed=run.seed),
    )


def sweep(runs: Sequence[Run], modality: "Callable[[], Modality]", processes: int) -> dict[Path, str]:
    """Perform the runs that have not ended, several at a time.

    Args:
        runs: the runs of `plan`.
        modality: a function that returns the `Modality`, at the top level of its module.
        processes: number of runs at a time; they share the CPU cores.

    Returns:
        The reasons of the failed runs, by folder.
    """
    pending = [run for run in runs if not run.ended]
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    failed: dict[Path, str] = {}
    # Spawned processes are reused, so the imports are done only once per process.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(perform, run, modality, threads): run for run in pending}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                run = futures[future]
                if reason := future.result():
                    failed[run.folder] = reason
                text = f"{done}/{len(pending)}  {run.name}, seed {run.seed}"
                print(text + (f": {reason}" if reason else ""), flush=True)
        except Stopped:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():  # each saves its run
                process.terminate()
            raise
    return failed


def table(runs: Sequence[Run], ablations: Sequence[Path], published: Mapping[str, float]) -> "Comparison":
    """Mean and sample standard deviation over seeds of each row, next to the published figure.

    Rows without an ended run are left out.

    Args:
        runs, ablations: as in `plan`.
        published: published figures by ablation, and of the baseline as ``"baseline"``.
    """
    from bt_multimodal.evaluation.figures import Figure
    from bt_multimodal.evaluation.report import Comparison, load_comparison, spread

    title, rows = "", {}
    for name in (BASELINE, *(path.stem for path in ablations)):
        by_row: dict[str, list[dict]] = {}
        for comparison in (load_comparison(run.folder) for run in runs if run.name == name and run.ended):
            title = comparison.title
            for row, cells in comparison.rows.items():
                by_row.setdefault(row, []).append(cells)
        for row, of_seeds in by_row.items():
            summary = {column: spread([cells[column].mean for cells in of_seeds]) for column in of_seeds[0]}
            trained = row == "trained encoder"
            if trained and name in published:
                summary["paper"] = Figure(published[name])
            rows[name if trained else row] = summary
    return Comparison(f"{title}; mean ± standard deviation over seeds", rows)
