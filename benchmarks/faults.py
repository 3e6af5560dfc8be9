"""Training runs that are killed again and again, and other faults: what is left equals a run without them.

    python benchmarks/faults.py [--kills 50] [--seed 0] [--out FOLDER]

One run on images (scikit-learn's digits) and one on sounds (synthesised), each with a checkpoint at every
second step, is started, killed by SIGKILL at a random moment, and started again by the same command, until
it has been killed often enough and is let end. Every start is a process of its own, forked from one that has
only imported the libraries. Then the other faults. A full disk and a read-only one are file systems of their
own, for which it takes root.

Prints one table; the status is 1 where something was not as it should be.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

IMAGES = [
    "fit", "--config", "configs/image/digits.yaml", "--trainer.max_epochs", "80", "--probe.table", "false",
    "--model.projector", "[64, 64]", "--model.encoder.widths", "[8, 16]", "--probe.every", "10",
]  # fmt: skip
SOUNDS = [
    "fit", "--config", "configs/audio/synthetic.yaml", "--trainer.max_epochs", "60", "--probe.table", "false",
    "--model.projector", "[64, 64]", "--model.encoder.widths", "[8, 8]", "--views.memory", "256",
    "--probe.every", "10",
]  # fmt: skip
OFTEN = ["--checkpoint.steps", "2"]


class Run:
    """One training run in a directory, started as often as it takes."""

    def __init__(self, argv: list[str], folder: Path):
        self.argv, self.folder, self.log = [*argv, "--run_dir", str(folder)], folder, f"{folder}.log"

    def start(self) -> int:
        """A process that runs the command; its id."""
        child = os.fork()
        if child:
            return child
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from tasks import audio_pretrain, image_pretrain

            task = audio_pretrain if any("audio" in word for word in self.argv) else image_pretrain
            os._exit(task.pretrain(task.__doc__ or "", task.modality, self.argv))
        except BaseException:
            traceback.print_exc()
            os._exit(70)

    def finish(self) -> int:
        """Start it, wait for its end, and give its status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])

    def kill(self, when: Callable[[float], bool], number: signal.Signals = signal.SIGKILL) -> int | None:
        """Start it, signal it when ``when(seconds since)`` says so; its status, None if it ended before."""
        child, began = self.start(), time.monotonic()
        while not when(time.monotonic() - began):
            if os.waitpid(child, os.WNOHANG)[0]:
                return None
            time.sleep(0.001)
        os.kill(child, number)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def reaches(self, step: int, pause: float, in_writing: bool) -> Callable[[float], bool]:
        """So many seconds after it has saved a step, and if wanted while it then writes a checkpoint."""
        reached: list[float] = []

        def when(now: float) -> bool:
            if not reached and self.step >= step:
                reached.append(now)
            return bool(reached) and now - reached[0] >= pause and (self.writing or not in_writing)

        return when

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step=*.ckpt"))

    @property
    def step(self) -> int:
        """Of the newest checkpoint."""
        return int(self.checkpoints[-1].stem.partition("=")[2]) if self.checkpoints else 0

    @property
    def writing(self) -> bool:
        """Whether it ended while it wrote a checkpoint."""
        return any((self.folder / "checkpoints").glob("*.partial"))

    def said(self) -> str:
        """The last line that it printed."""
        lines = Path(self.log).read_text().replace("\r", "\n").strip().splitlines()
        return lines[-1] if lines else ""

    def result(self) -> dict[str, Any]:
        """All that has to be equal: files, weights, optimiser, schedule, and the metrics but for the rate."""
        import torch
        from safetensors.torch import load_file

        state = torch.load(self.checkpoints[-1], weights_only=True)
        with (self.folder / "metrics.csv").open() as file:
            rows = [{**row, "samples_per_s": ""} for row in csv.DictReader(file)]
        return {
            "files": sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*")),
            "encoder": load_file(self.folder / "encoder.safetensors"),
            "weights": state["state_dict"],
            "optimiser": state["optimizer_states"],
            "schedule": state["lr_schedulers"],
            "random states": state["random_states"],
            "metrics": rows,
        }


def same(a: Any, b: Any) -> bool:
    """Equality of nested containers of tensors and plain values, to the last bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def differs(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What of two results differs, or that nothing does."""
    return ", ".join(name for name in expected if not same(found[name], expected[name])) or "nothing"


Row = tuple[str, str, str, bool]


def killed(name: str, argv: list[str], out: Path, kills: int, rng: random.Random) -> Row:
    """A run of so many kills beside one of none."""
    began = time.monotonic()
    whole = Run([*argv, *OFTEN], out / f"{name}-whole")
    if whole.finish() != 0:
        return name, "the run without faults", whole.said(), False
    took = time.monotonic() - began
    parts = Run([*argv, *OFTEN], out / f"{name}-killed")
    total, start_up = whole.step, _start_up(argv, out / f"{name}-start", took)
    # A fifth of the kills while it starts; the others spread over the run, half of them in writing.
    done = writing = 0
    for i in range(kills):
        if rng.random() < 0.2:
            status = parts.kill(_after(rng.uniform(0, start_up)))
        else:
            target = int(0.97 * total * (i + rng.random()) / kills)
            status = parts.kill(parts.reaches(target, rng.uniform(0, 0.1), rng.random() < 0.5))
        done += status is not None
        writing += parts.writing
    status = parts.finish()
    if status != 0:
        return name, f"{done} kills", f"status {status}: {parts.said()}", False
    found = differs(parts.result(), whole.result())
    text = f"{done} kills over {total} steps, {writing} of them while a checkpoint was written"
    return name, text, f"{found} differs from the run without", found == "nothing" and done == kills


def _after(seconds: float) -> Callable[[float], bool]:
    return lambda now: now >= seconds


def _start_up(argv: list[str], folder: Path, most: float) -> float:
    """Seconds from the start to the first checkpoint."""
    run, began = Run([*argv, "--checkpoint.steps", "1"], folder), time.monotonic()
    child = run.start()
    while not run.checkpoints and time.monotonic() - began < most:
        time.sleep(0.01)
    took = time.monotonic() - began
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return took


def signalled(out: Path, whole: Run, rng: random.Random, number: signal.Signals) -> Row:
    """A run that is asked to stop five times."""
    run = Run([*IMAGES, *OFTEN], out / number.name)
    start_up = _start_up(IMAGES, out / f"{number.name}-start", 60)
    statuses = [run.kill(_after(start_up + rng.uniform(0.2, 1.0)), number) for _ in range(5)]
    said = run.said()
    end = run.finish()
    found = differs(run.result(), whole.result())
    return (
        number.name, f"5 times; statuses {statuses}", f"{found} differs; said: {said}",
        end == 0 and statuses == [75] * 5 and found == "nothing",
    )  # fmt: skip


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own at ``folder``."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(
    name: str, out: Path, whole: Run, refuse: Callable[[Path], None], relent: Callable[[Path], None]
) -> Row:
    """A run on a disk of its own that takes no more after a while, and then does again."""
    run = Run([*IMAGES, "--checkpoint.steps", "20"], out / name)
    with mounted(run.folder, "size=64m"):
        child = run.start()
        while not run.checkpoints:
            time.sleep(0.01)
        refuse(run.folder)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said, kept = run.said(), run.step
        relent(run.folder)
        end = run.finish()
        found = differs(run.result(), whole.result()) if end == 0 else f"status {end}"
    return (
        name, f"status {status}, checkpoint of step {kept} kept",
        f"{found} differs; said: {said}", status == 1 and kept > 0 and found in ("nothing", "files"),
    )  # fmt: skip


def fill(folder: Path) -> None:
    """Leave no room on its disk; what does it is `folder / "filler"`."""
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(b"0" * 65536)
                file.flush()
        except OSError:
            pass


def remount(folder: Path, how: str) -> None:
    """Read-only or not: refused while a file is open for writing, so asked for until it is not."""
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    while subprocess.run(command, capture_output=True).returncode:
        time.sleep(0.001)


def truncated(out: Path, whole: Run) -> Row:
    """The newest checkpoint cut in half."""
    run = Run([*IMAGES, *OFTEN], out / "truncated")
    while run.step < 50:
        run.kill(_after(3))
    newest = run.checkpoints[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    end = run.finish()
    said = Path(run.log).read_text().partition("warning: ")[2].partition("\n")[0] or "nothing"
    found = differs(run.result(), whole.result()) if end == 0 else f"status {end}"
    good = found == "nothing" and newest.name in said
    return "truncated checkpoint", newest.name, f"{found} differs; said: {said}", good


def damaged(out: Path, share: float, ends: bool) -> Row:
    """A folder of which a share of the pictures is cut in half."""
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
    named = Path(run.log).read_text().count("damaged record ")
    what = f"{1000 / round(1 / share):.0f} of 1,000 records cut in half"
    return f"{100 * share:g} % damaged", what, f"status {status}, {named} named", (status != 0) == ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--out", type=Path, default=None, help="where the runs go; default: a temporary folder"
    )
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="faults-"))
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(asked.seed)

    # Once, for all the processes to come.
    import lightning.pytorch

    import bt_multimodal.commands.pretrain
    import bt_multimodal.training.callbacks
    import bt_multimodal.training.run_checkpoints
    import encoders.audio.encoders
    import encoders.image.encoders

    del lightning, bt_multimodal, encoders
    whole = Run([*IMAGES, *OFTEN], out / "images-whole")
    faults: list[Callable[[], Row]] = [
        lambda: killed("images", IMAGES, out, asked.kills, rng),
        lambda: killed("sounds", SOUNDS, out, asked.kills, rng),
        lambda: signalled(out, whole, rng, signal.SIGTERM),
        lambda: signalled(out, whole, rng, signal.SIGUSR1),
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
    rows = []
    for fault in faults:
        began = time.monotonic()
        row = fault()
        rows.append(row)
        name, what, outcome, good = row
        print(f"{name:22}{'as it should be' if good else 'WRONG':17}{what}; {outcome}", end="")
        print(f"  [{time.monotonic() - began:.0f} s]", flush=True)
    if asked.out is None and all(good for *_, good in rows):
        shutil.rmtree(out)
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
