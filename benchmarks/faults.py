"""Training runs that survive kills and other faults: their results equal those of undisturbed runs.

    python benchmarks/faults.py [--kills 50] [--seed 0] [--out FOLDER]

One run on images (scikit-learn's digits) and one on sounds (synthesised) write a checkpoint at every second
step. Each is killed by SIGKILL at a random moment and restarted by the same command, until it has been killed
``--kills`` times and may finish. Every start is a new process, forked from one that has only imported the
libraries. The other faults follow. The full and the read-only disk are separate file systems, which require
root.

The benchmark prints one table; its exit status is 1 if a result is wrong.
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
    """One training run in a directory, which can be started repeatedly."""

    def __init__(self, argv: list[str], folder: Path):
        self.argv, self.folder, self.log = [*argv, "--run_dir", str(folder)], folder, f"{folder}.log"

    def start(self) -> int:
        """Starts a process that runs the command and returns its id."""
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
        """Starts the run, waits for its end and returns its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])

    def kill(self, when: Callable[[float], bool], number: signal.Signals = signal.SIGKILL) -> int | None:
        """Starts the run and signals it once ``when(seconds)`` is true; returns its status.

        Returns ``None`` if the run ended earlier.
        """
        child, began = self.start(), time.monotonic()
        while not when(time.monotonic() - began):
            if os.waitpid(child, os.WNOHANG)[0]:
                return None
            time.sleep(0.001)
        os.kill(child, number)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def reaches(self, step: int, pause: float, in_writing: bool) -> Callable[[float], bool]:
        """Returns a condition for `kill`: ``pause`` seconds after a saved step, optionally during a save."""
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
        """Step of the newest checkpoint."""
        return int(self.checkpoints[-1].stem.partition("=")[2]) if self.checkpoints else 0

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is partly written."""
        return any((self.folder / "checkpoints").glob("*.partial"))

    def said(self) -> str:
        """Returns the last line of the run's log."""
        lines = Path(self.log).read_text(encoding="utf-8").replace("\r", "\n").strip().splitlines()
        return lines[-1] if lines else ""

    def result(self) -> dict[str, Any]:
        """Returns all that must be equal: files, weights, optimiser, schedule, metrics without the rate."""
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
    """Returns whether nested containers of tensors and plain values are bit-identical."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def differs(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Returns the names of the differing parts of two results, or ``"nothing"``."""
    return ", ".join(name for name in expected if not same(found[name], expected[name])) or "nothing"


Row = tuple[str, str, str, bool]


def killed(name: str, argv: list[str], out: Path, kills: int, rng: random.Random) -> Row:
    """Compares a run that is killed ``kills`` times with an undisturbed run."""
    began = time.monotonic()
    whole = Run([*argv, *OFTEN], out / f"{name}-whole")
    if whole.finish() != 0:
        return name, "the run without faults", whole.said(), False
    took = time.monotonic() - began
    parts = Run([*argv, *OFTEN], out / f"{name}-killed")
    total, start_up = whole.step, _start_up(argv, out / f"{name}-start", took)
    # A fifth of the kills hit the start; the others spread over the run, half of them during a save.
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
    different = differs(parts.result(), whole.result())
    text = f"{done} kills over {total} steps, {writing} of them while a checkpoint was written"
    outcome = f"{different} differs from the undisturbed run"
    return name, text, outcome, different == "nothing" and done == kills


def _after(seconds: float) -> Callable[[float], bool]:
    return lambda now: now >= seconds


def _start_up(argv: list[str], folder: Path, most: float) -> float:
    """Returns the seconds from the start to the first checkpoint."""
    run, began = Run([*argv, "--checkpoint.steps", "1"], folder), time.monotonic()
    child = run.start()
    while not run.checkpoints and time.monotonic() - began < most:
        time.sleep(0.01)
    took = time.monotonic() - began
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return took


def signalled(out: Path, whole: Run, rng: random.Random, number: signal.Signals) -> Row:
    """Tests a run that is stopped five times by a signal."""
    run = Run([*IMAGES, *OFTEN], out / number.name)
    start_up = _start_up(IMAGES, out / f"{number.name}-start", 60)
    statuses = [run.kill(_after(start_up + rng.uniform(0.2, 1.0)), number) for _ in range(5)]
    message = run.said()
    end = run.finish()
    different = differs(run.result(), whole.result())
    return (
        number.name, f"5 times; statuses {statuses}", f"{different} differs; message: {message}",
        end == 0 and statuses == [75] * 5 and different == "nothing",
    )  # fmt: skip


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
    while run.step < 50:
        run.kill(_after(3))
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
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the runs; default: a temporary folder"
    )
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="faults-"))
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)

    # Imported once, for all forked processes.
    import lightning.pytorch

    import bt_multimodal.commands.pretrain
    import bt_multimodal.training.callbacks
    import bt_multimodal.training.run_checkpoints
    import encoders.audio.encoders
    import encoders.image.encoders

    del lightning, bt_multimodal, encoders
    whole = Run([*IMAGES, *OFTEN], out / "images-whole")
    faults: list[Callable[[], Row]] = [
        lambda: killed("images", IMAGES, out, arguments.kills, rng),
        lambda: killed("sounds", SOUNDS, out, arguments.kills, rng),
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
        name, description, outcome, good = row
        print(f"{name:22}{'as it should be' if good else 'WRONG':17}{description}; {outcome}", end="")
        print(f"  [{time.monotonic() - began:.0f} s]", flush=True)
    if arguments.out is None and all(good for *_, good in rows):
        shutil.rmtree(out)
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
