"""Runs that are started again and again, in processes forked from one that has imported the libraries."""

import csv
import importlib
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bt_multimodal.stop_signals import SIGNALS
from encoders.command_line import main


class Point(NamedTuple):
    """A moment of a run: the ``nth`` call of a function or method.

    Attributes:
        module: where it is looked up.
        name: its name there, ``function`` or ``Class.method``.
    """

    module: str
    name: str
    nth: int

    def before(self, do: Callable[[], None]) -> None:
        """Calls ``do`` just before that call, in this process."""
        owner: Any = importlib.import_module(self.module)
        *classes, name = self.name.split(".")
        for each in classes:
            owner = getattr(owner, each)
        original, calls = getattr(owner, name), 0

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.nth:
                do()
            return original(*arguments, **options)

        setattr(owner, name, counted)


class Run:
    """One training run in a directory, which can be started repeatedly."""

    def __init__(self, argv: list[str], folder: Path):
        self.argv, self.folder, self.log = [*argv, "--run_dir", str(folder)], folder, f"{folder}.log"

    def start(self, prepare: Callable[[], None] | None = None) -> int:
        """Starts a process, with a group of its own, that runs the command; returns its id.

        Args:
            prepare: called in the process before the command.
        """
        child = os.fork()
        if child:
            return child
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setpgid(0, 0)
            for number in SIGNALS:  # under nohup, or in the background of a shell, some are ignored
                signal.signal(number, signal.SIG_DFL)
            if prepare is not None:
                prepare()
            os._exit(main(self.argv))
        except BaseException:
            traceback.print_exc()
            os._exit(70)

    def finish(self, prepare: Callable[[], None] | None = None) -> int:
        """Starts the run, waits for its end and returns its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(prepare), 0)[1])

    def aimed(self, point: "Point", send: Callable[[], None]) -> int:
        """Runs until a point, calls ``send`` there, and returns the exit status."""
        return self.finish(lambda: point.before(send))

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
        rows = []
        if (self.folder / "metrics.csv").exists():
            with (self.folder / "metrics.csv").open(encoding="utf-8") as file:
                rows = [{**row, "samples_per_s": ""} for row in csv.DictReader(file)]
        table, encoder = self.folder / "table.txt", self.folder / "encoder.safetensors"
        return {
            "files": sorted(path.name for path in self.folder.iterdir()),
            "encoder": load_file(encoder) if encoder.exists() else None,
            "table": table.read_text(encoding="utf-8") if table.exists() else None,
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
