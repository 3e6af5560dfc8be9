"""Training runs that survive kills, signals and other faults: their results equal those of undisturbed runs.

    python benchmarks/faults.py [--kills 100] [--seed 0] [--only NAME ...] [--out FOLDER]

Runs of every task, with and without loader processes, from a stream and in micro-batches:

* aimed: SIGKILL at each of the task's `moments`, then the same command again;
* random: SIGKILL at ``--kills`` random moments over all tasks, a fifth of them in the start;
* signalled: at each moment SIGINT, SIGTERM, SIGUSR1 or SIGHUP, to the process, to its group, or twice.

Every start is a new process, forked from one that has only imported the libraries. The other faults follow.
The full and the read-only disk are separate file systems, which require root.

The benchmark prints one table; its exit status is 1 if a result is wrong.
"""

import argparse
import csv
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.forked_runs import Point, Run, differs
from bt_multimodal.stop_signals import SIGNALS

SHORT = [
    "--model.projector", "[32, 32]", "--model.warmup_epochs", "1", "--trainer.max_epochs", "4",
    "--probe.every", "1", "--probe.linear", "false", "--probe.per_class", "[]",
]  # fmt: skip
IMAGES = ["image", "pretrain", "--config", "image/digits", "--model.encoder.widths", "[8, 16]", *SHORT]
SOUNDS = [
    "audio", "pretrain", "--config", "audio/synthetic", "--model.encoder.widths", "[8, 8]", *SHORT,
    "--views.memory", "64",
]  # fmt: skip
WORKERS = ["--data.num_workers", "2", "--data.cache", "false"]
OFTEN = ["--checkpoint.steps", "2"]


class Task(NamedTuple):
    """A command to disturb."""

    name: str
    argv: list[str]
    epoch: int  # steps of an epoch
    steps: int  # steps of the run

    @property
    def moments(self) -> dict[str, Point]:
        """The moments at which it is disturbed."""
        training, part = "bt_multimodal.training", "pretraining"
        model = "Pretraining"
        if "classify" in self.argv:
            part, model = "classification", "Classification"
        step, saving = f"{model}.training_step", f"{training}.run_checkpoints"
        opening = "open_stream" if "--data.stream" in self.argv else "open_source"
        return {
            "the data are opened": Point(f"{training}.{part}_data", opening, 1),
            "the set-up": Point(saving, "RunCheckpoints.setup", 1),
            "the first step": Point(f"{training}.{part}", step, 1),
            "an epoch's last step": Point(f"{training}.{part}", step, self.epoch),
            "an epoch's first step": Point(f"{training}.{part}", step, self.epoch + 1),
            "a look of the online probe": Point(f"{training}.callbacks", "knn", 2),
            "an epoch's end": Point(saving, "RunCheckpoints.on_train_epoch_end", 2),
            "a save": Point(saving, "SafeCheckpointIO.save_checkpoint", 2),
            "within a write": Point("bt_multimodal.safe_files", "os.replace", 3),
            "the last step": Point(f"{training}.{part}", step, self.steps),
            "the end of the training": Point(saving, "RunCheckpoints.on_train_end", 1),
            "the results": Point("bt_multimodal.evaluation.report", "save_comparison", 1),
        }


def tasks(out: Path) -> list[Task]:
    """The commands that are disturbed, and the data that they need."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures = []
    for image in load_digits().images[:500]:
        file = io.BytesIO()
        Image.fromarray((image * 15).astype("uint8")).save(file, "png")
        pictures.append(file.getvalue())
    pq.write_table(pa.table({"image": pictures}), out / "train.parquet", row_group_size=50)
    words = ["wave", "tide", "sail", "harbour", "boat", "street", "house", "tram", "market", "square"]
    with (out / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[" ".join(words[i * k % 5 + 5 * (i % 2)] for k in (1, 2, 3)), i % 2] for i in range(300)]
        csv.writer(file).writerows([["text", "label"], *rows])
    stream = [*IMAGES, "--data.source", str(out / "train.parquet"), "--data.stream", "320"]
    stream += ["--data.batch_size", "64", "--data.cache", "false"]
    texts = ["text", "pretrain", "--config", "text/docstrings", *SHORT, "--model.encoder.width", "16"]
    texts += ["--views.vocabulary", "300", "--data.source", str(out / "texts.csv"), "--data.batch_size", "48"]
    found = [
        Task("images", IMAGES, 5, 20),
        Task("images, 2 processes", [*IMAGES, *WORKERS], 5, 20),
        Task("images in micro-batches", [*IMAGES, "--model.accumulate", "3"], 5, 20),
        Task("a stream", stream, 5, 20),
        Task("a stream, 2 processes", [*stream, "--data.num_workers", "2"], 5, 20),
        Task("sounds with a memory", SOUNDS, 4, 16),
        Task("texts, 2 processes", [*texts, *WORKERS], 4, 16),
    ]
    classify = [
        "image", "classify", "--config", "image/imagenet_linear", "--encoder", str(out / "images" / "whole"),
        "--views", "encoders.image.views.DigitViews", "--views.size", "8", "--data.source", "sklearn:digits",
        "--data.batch_size", "280", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
        "--trainer.max_epochs", "4", "--model.encoder_lr", "0.1",
    ]  # fmt: skip
    found += [
        Task("classify", [*classify, "--data.num_workers", "0"], 5, 20),
        Task("classify, 2 processes", [*classify, "--data.num_workers", "2"], 5, 20),
    ]
    return found


Row = tuple[str, str, str, bool]


def disturbed(task: Task, out: Path, kills: int, rng: random.Random) -> Iterator[Row]:
    """Disturbs a run of a task in every way; each result is compared with that of a run in peace."""
    out.mkdir(parents=True, exist_ok=True)
    whole = Run([*task.argv, *OFTEN], out / "whole")
    if status := whole.finish():
        yield task.name, "in peace", f"status {status}: {whole.said()}", False
        return
    expected = whole.result()

    wrong: list[str] = []
    reached = 0
    for i, (moment, point) in enumerate(task.moments.items()):
        run = Run([*task.argv, *OFTEN], out / f"kill-{i}")
        status = run.aimed(point, lambda: os.kill(os.getpid(), signal.SIGKILL))
        reached += status == -signal.SIGKILL
        wrong += _compared(run, expected, moment)
    yield task.name, f"killed at {reached} of {len(task.moments)} moments", _all(wrong), not wrong

    wrong, done = [], 0
    run = Run([*task.argv, *OFTEN], out / "random")
    for i in range(kills):
        if rng.random() < 0.2:
            pause = rng.uniform(0, 1.0)
            status_or_none = run.kill(lambda seconds, pause=pause: seconds >= pause)
        else:
            step = int(0.97 * task.steps * (i + rng.random()) / kills)
            status_or_none = run.kill(run.reaches(step, rng.uniform(0, 0.1), rng.random() < 0.3))
        done += status_or_none is not None
    wrong = _compared(run, expected, "random")
    yield task.name, f"killed {done} times at random", _all(wrong), not wrong

    wrong, ways = [], list(itertools.product(("process", "group", "twice"), SIGNALS))
    rng.shuffle(ways)
    reached = 0
    for i, ((moment, point), (to, number)) in enumerate(zip(task.moments.items(), ways, strict=True)):
        run = Run([*task.argv, *OFTEN], out / f"signal-{i}-{to}")
        status = run.aimed(point, lambda to=to, number=number: _send(to, number))
        text = Path(run.log).read_text(encoding="utf-8")
        reached += status != 0
        good = {0, 130 if number == signal.SIGINT else 75}
        if to == "twice":  # unless it ended after the first
            good.add(128 + number)
        if status not in good or "Traceback" in text or text.count("stopped by") > 1:
            wrong.append(f"{moment}, {number.name} to the {to}: status {status}, {run.said()}")
        wrong += _compared(run, expected, f"{moment}, {number.name} {to}")
    yield task.name, f"{reached} signals", _all(wrong), not wrong


def _send(to: str, number: signal.Signals) -> None:
    if to == "group":
        os.killpg(0, number)
        return
    if to == "twice":  # while the process does something long
        threading.Timer(0.6, os.kill, (os.getpid(), number)).start()
        try:
            os.kill(os.getpid(), number)
        finally:
            time.sleep(1)
        return
    os.kill(os.getpid(), number)


def _compared(run: Run, expected: dict, moment: str) -> list[str]:
    """Continues a run until its end; what is wrong with its result."""
    status = run.finish()
    if status:
        return [f"{moment}: the continued run ended with {status}: {run.said()}"]
    different = differs(run.result(), expected)
    return [] if different == "nothing" else [f"{moment}: {different} differs"]


def _all(wrong: list[str]) -> str:
    return "; ".join(wrong) or "nothing differs from the run in peace"


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mounts a separate file system at ``folder``."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(
    name: str, out: Path, whole: Run, refuse: Callable[[Path], None], relent: Callable[[Path], None]
) -> Row:
    """Tests a run whose disk refuses writes after the first checkpoint and later accepts them again."""
    run = Run([*IMAGES, "--checkpoint.steps", "20"], out / name)
    with mounted(run.folder, "size=64m"):
        child = run.start()
        while not run.checkpoints:
            time.sleep(0.01)
        refuse(run.folder)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        message, step = run.said(), run.step
        relent(run.folder)
        end = run.finish()
        different = differs(run.result(), whole.result()) if end == 0 else f"status {end}"
    return (
        name, f"status {status}, checkpoint of step {step} kept", f"{different} differs; message: {message}",
        status == 1 and step > 0 and different in ("nothing", "files"),
    )  # fmt: skip


def fill(folder: Path) -> None:
    """Fills the folder's disk with the file ``filler``."""
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(b"0" * 65536)
                file.flush()
        except OSError:
            pass


def remount(folder: Path, how: str) -> None:
    """Remounts the folder's disk as ``how``; retries while an open file prevents it."""
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    while subprocess.run(command, capture_output=True).returncode:
        time.sleep(0.001)


def truncated(out: Path, whole: Run) -> Row:
    """Tests a run whose newest checkpoint is cut in half."""
    run = Run([*IMAGES, *OFTEN], out / "truncated")
    while run.step < 10:
        run.kill(lambda seconds: seconds > 0.3 and run.step >= 10)
    newest = run.checkpoints[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    end = run.finish()
    message = (
        Path(run.log).read_text(encoding="utf-8").partition("warning: ")[2].partition("\n")[0] or "nothing"
    )
    different = differs(run.result(), whole.result()) if end == 0 else f"status {end}"
    good = different == "nothing" and newest.name in message
    return "truncated checkpoint", newest.name, f"{different} differs; message: {message}", good


def damaged(out: Path, share: float, ends: bool) -> Row:
    """Tests a run on a folder in which a share of the pictures is cut in half."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = out / f"pictures-{share}"
    bunch = load_digits()
    for i, (image, label) in enumerate(zip(bunch.images[:1000], bunch.target, strict=False)):
        path = folder / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)
        if i % round(1 / share) == 0:
            os.truncate(path, path.stat().st_size // 2)
    words = ["--data.source", str(folder), "--trainer.max_epochs", "6", "--data.cache", "false"]
    run = Run([*IMAGES, *words], out / f"damaged-{share}")
    status = run.finish()
    warnings = Path(run.log).read_text(encoding="utf-8").count("damaged record ")
    fault = f"{1000 / round(1 / share):.0f} of 1,000 records cut in half"
    return f"{100 * share:g} % damaged", fault, f"status {status}, {warnings} named", (status != 0) == ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="random kills over all tasks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--only", nargs="*", help="names of tasks; without the other faults")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the runs; default: a temporary folder"
    )
    arguments = parser.parse_args()
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="faults-"))).absolute()
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)

    # Imported once, for all forked processes.
    import lightning.pytorch
    import torch

    import bt_multimodal.commands.pretrain
    import bt_multimodal.training.callbacks
    import bt_multimodal.training.classification_data
    import bt_multimodal.training.run_checkpoints
    import encoders.audio.encoders
    import encoders.image.encoders
    import encoders.text.views

    del lightning, bt_multimodal, encoders
    torch.set_num_threads(1)
    all_tasks = tasks(out)
    chosen = [task for task in all_tasks if not arguments.only or task.name in arguments.only]
    good = True

    def report(row: Row, began: float) -> None:
        nonlocal good
        name, description, outcome, right = row
        good &= right
        print(f"{name:26}{'as it should be' if right else 'WRONG':17}{description}; {outcome}", end="")
        print(f"  [{time.monotonic() - began:.0f} s]", flush=True)

    for task in chosen:
        began = time.monotonic()
        folder = out / ("images" if task.name == "images" else task.name.replace(" ", "_"))
        for row in disturbed(task, folder, -(-arguments.kills // len(all_tasks)), rng):
            report(row, began)
            began = time.monotonic()
    if arguments.only:
        return 0 if good else 1
    whole = Run([*IMAGES, *OFTEN], out / "images" / "whole")
    faults: list[Callable[[], Row]] = [
        lambda: truncated(out, whole),
        lambda: damaged(out, 0.005, ends=False),
        lambda: damaged(out, 0.05, ends=True),
    ]
    if os.geteuid() == 0:
        faults += [
            lambda: refused("full disk", out, whole, fill, lambda folder: (folder / "filler").unlink()),
            lambda: refused(
                "read-only disk", out, whole, lambda f: remount(f, "ro"), lambda f: remount(f, "rw")
            ),
        ]
    for fault in faults:
        began = time.monotonic()
        report(fault(), began)
    if arguments.out is None and good:
        shutil.rmtree(out)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
