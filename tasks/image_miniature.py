"""Every evaluation of the paper at a size for two CPU cores, from pretraining to one table.

    python tasks/image_miniature.py --data.source ../shared/data/cifar10
    python tasks/image_miniature.py --help

--data.source  labelled pictures with a training and a test split, as in tasks/image_pretrain.py
--out          where everything goes (default runs/miniature); what has ended there is not done again
--seeds        one pretraining each, and everything after it (default 0 1 2; none: the data alone)

Makes a folder of pictures like ImageNet's and scenes with boxes like PASCAL VOC's, then runs the shipped
configs on them with a small ResNet: pretraining with kNN, a linear classifier, 1 % and 10 % of the
labels, SVMs on VOC's classes, and detection. The untrained encoder goes through the same. Every command
is printed; what it says goes to a .log beside its run. The table is mean and standard deviation over the
seeds.
"""

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bt_multimodal.evaluation.figures import Rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "image"
_CPU = "--trainer.accelerator cpu --trainer.devices 1"
_VIEWS = "--views.size 48"
_DATA = "--data.source {out}/pictures --data.cache true --data.num_workers 0"
_FEW = f"{_DATA} --trainer.check_val_every_n_epoch 20 {_CPU} {_VIEWS}"


class Step(NamedTuple):
    """A column of the table: a task on a shipped config, with overrides."""

    title: str
    task: str
    config: str
    overrides: str
    figure: str  # its column in the run's own table
    fresh: bool = True  # whether the untrained encoder needs a run of its own

    @property
    def name(self) -> str:
        return Path(self.config).stem + {"1 %": "_1", "10 %": "_10"}.get(self.title, "")


PRETRAINING = Step(
    "kNN", "image_pretrain", "imagenet_resnet50.yaml",
    f"{_DATA} --data.batch_size 256 {_CPU} {_VIEWS} --views.crop_scale [0.25,1.0] --views.blur [0.5,0.1] "
    "--model.encoder.name resnet18 --model.encoder.width 16 --model.projector [512,512,512] "
    "--model.loss.lambd 0.03 --model.loss.scale 1.0 --model.optimizer.lr 2.0 --model.warmup_epochs 1 "
    "--trainer.max_epochs 15 --trainer.precision 32-true --trainer.sync_batchnorm false "
    "--probe.table true --probe.linear false --probe.per_class []",
    "kNN", fresh=False,
)  # fmt: skip
EVALUATIONS = (
    Step("linear", "image_classify", "imagenet_linear.yaml",
         f"{_DATA} --trainer.max_epochs 8 --trainer.check_val_every_n_epoch 8 {_CPU} {_VIEWS}", "top-1"),
    Step("1 %", "image_classify", "imagenet_few_labels.yaml",
         f"{_FEW} --data.subset {{out}}/pictures/one_percent.txt --data.batch_size 50", "top-1"),
    Step("10 %", "image_classify", "imagenet_few_labels.yaml",
         f"{_FEW} --data.subset {{out}}/pictures/ten_percent.txt --data.batch_size 100", "top-1"),
    Step("VOC mAP", "image_svm", "voc07_svm.yaml", f"--data.source {{out}}/VOC2007 {_VIEWS}", "mAP",
         fresh=False),
    Step("detection AP50", "image_detect", "voc0712_detection.yaml",
         "--data.source {out}/VOC2007 --data.train_split trainval --data.test_split test "
         "--data.batch_size 8 --data.sizes [112,128,144] --data.test_size 128 --data.num_workers 0 "
         "--model.anchor_sizes [32,48,64] --model.rois 64 --model.proposals [200,100] "
         "--model.candidates [400,200] --model.lr 0.02 --model.warmup_steps 30 --model.milestones [250] "
         f"--trainer.max_steps 300 --trainer.sync_batchnorm false {_CPU}", "AP50"),
)  # fmt: skip


def _command(task: str) -> Callable[[Sequence[str]], int]:
    """A task, run in this process: importing Lightning once is enough."""
    from encoders.image import commands

    return getattr(commands, task.removeprefix("image_"))


def perform(step: Step, out: Path, seed: int, more: Sequence[str] = ()) -> dict[str, float]:
    """Run a step unless it has ended; the figures of its table, by row.

    Raises:
        ValueError: a step that failed.
    """
    from bt_multimodal.evaluation.report import load_comparison

    run = out / f"seed{seed}" / (step.name + ("_untrained" if "--fresh" in more else ""))
    if not (run / "table.json").is_file():
        argv = ["fit", "--config", str(_CONFIGS / step.config), *step.overrides.format(out=out).split()]
        argv += [*more, "--seed", str(seed), "--run_dir", str(run)]
        print(f"\npython tasks/{step.task}.py {shlex.join(argv)}", flush=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        began, log = time.monotonic(), run.with_suffix(".log")
        with (
            log.open("w", encoding="utf-8") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            status = _command(step.task)(argv)
        if status:
            raise ValueError(f"{step.title}, seed {seed}, failed; see {log}")
        print(f"# {time.monotonic() - began:.0f} s", flush=True)
    rows = load_comparison(run).rows
    return {row: cells[step.figure].mean for row, cells in rows.items()}


def chain(out: Path, seeds: Sequence[int]) -> "Rows":
    """Every step for every seed: a row a representation, mean and standard deviation a column."""
    from bt_multimodal.evaluation.report import spread

    found: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        encoder = ["--encoder", str(out / f"seed{seed}" / PRETRAINING.name)]
        for step in (PRETRAINING, *EVALUATIONS):
            more = [] if step is PRETRAINING else encoder
            figures = perform(step, out, seed, more)
            if step.fresh:
                figures |= perform(step, out, seed, [*more, "--fresh", "true"])
            for row, figure in figures.items():
                found.setdefault(row, {}).setdefault(step.title, []).append(figure)
    return {
        row: {title: spread(values) for title, values in columns.items()} for row, columns in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data, run the chain, print the table; the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data.source", dest="source", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    if not argv:
        print((__doc__ or "").strip())
        return 0
    arguments = parser.parse_args(argv)
    from bt_multimodal.commands.cli import fail
    from bt_multimodal.evaluation.report import Comparison, save_comparison
    from encoders.image.miniature import make_miniature

    began = time.monotonic()
    try:
        make_miniature(arguments.source, arguments.out)
        if not arguments.seeds:
            print(f"the data are in {arguments.out}")
            return 0
        rows = chain(arguments.out, arguments.seeds)
    except (ValueError, OSError) as error:
        return fail(str(error))
    title = f"the miniature, mean ± standard deviation over {len(arguments.seeds)} seed(s)"
    comparison = Comparison(title, rows, "in %")
    save_comparison(arguments.out, comparison)
    print(
        f"\n{comparison}\n\n{(time.monotonic() - began) / 60:.0f} minutes; everything is in {arguments.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
