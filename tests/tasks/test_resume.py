"""A run that is stopped at any step and continued ends in the weights of one that never was, bit for bit."""

import csv
import errno
import io
import itertools
import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bt_multimodal import safe_files
from bt_multimodal.errors import TRY_AGAIN
from bt_multimodal.evaluation import report
from bt_multimodal.stop_signals import SIGNALS
from bt_multimodal.training import callbacks, pretraining_data, run_checkpoints
from bt_multimodal.training.pretraining import Pretraining
from tasks import audio_pretrain, image_pretrain

# Four steps an epoch; the encoder draws from torch's generator and from numpy's.
IMAGES = ["fit", "--config", "configs/image/digits.yaml", "--trainer.max_epochs", "3",
          "--model.warmup_epochs", "1", "--model.projector", "[16, 16]", "--model.encoder", "my_lab.Fragile",
          "--data.batch_size", "300", "--data.validation", "0.1", "--probe.table", "false"]  # fmt: skip
SOUNDS = ["fit", "--config", "configs/audio/synthetic.yaml", "--trainer.max_epochs", "3",
          "--model.warmup_epochs", "1", "--model.projector", "[16, 16]", "--probe.table", "false",
          "--model.encoder", "my_lab.Fragile", "--views.memory", "64"]  # fmt: skip
MY_LAB = """
import os, signal
import numpy as np
import torch
from torch import nn

kill_at, count, how = None, 0, None

class Fragile(nn.Module):
    features_dim = 16

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(36, 16), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Dropout(0.2),
        )

    def forward(self, view):
        global count
        if self.training:
            count += 1
            if kill_at is not None and count == kill_at:
                if how is None:
                    raise RuntimeError("killed")
                os.kill(os.getpid(), how)
            view = view + 0.01 * float(np.random.standard_normal())
        return self.layers(view)
"""


def run(argv, out, *words):
    task = image_pretrain if argv is IMAGES else audio_pretrain
    return task.main([*argv, "--run_dir", str(out), *words])


def left(out):
    """The names of the files, the encoder's weights, and the metrics but for the rate."""
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = [{**row, "samples_per_s": bool(row["samples_per_s"])} for row in csv.DictReader(file)]
    weights = {name: value.tolist() for name, value in load_file(out / "encoder.safetensors").items()}
    return sorted(path.name for path in out.iterdir()), weights, rows


def steps(out):
    """Of the checkpoints that are there."""
    return [int(path.stem.partition("=")[2]) for path in sorted((out / "checkpoints").iterdir())]


def killed(my_lab, argv, out, at, *words):
    """A run that fails in its step ``at``, in the second of the two forward passes."""
    my_lab.count, my_lab.kill_at = 0, 2 * at
    assert run(argv, out, *words) == 1
    my_lab.count, my_lab.kill_at = 0, None


CASES = {
    "first step": (IMAGES, [1], 1, ()),
    "second step": (IMAGES, [2], 1, ()),
    "last step of an epoch": (IMAGES, [4], 1, ()),
    "first step of an epoch": (IMAGES, [5], 1, ()),
    "last step": (IMAGES, [12], 1, ()),
    "again and again": (IMAGES, [3, 3, 3, 1], 1, ()),
    "between checkpoints": (IMAGES, [8, 2], 3, ()),
    "before the first checkpoint": (IMAGES, [6, 6], 9, ()),
    "with loader processes": (IMAGES, [4, 3], 1, ("--data.num_workers", "2")),
    "an epoch's end with loader processes": (IMAGES, [5], 1, ("--data.num_workers", "2")),
    "no memory yet": (SOUNDS, [1], 1, ()),
    "a memory of past clips": (SOUNDS, [5, 4], 1, ()),
    "sounds between checkpoints": (SOUNDS, [9], 4, ()),
    "in micro-batches": (IMAGES, [3], 1, ("--model.accumulate", "3")),
}


QUICK = ("first step", "last step of an epoch", "an epoch's end with loader processes", "in micro-batches")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_any_step(tmp_path, my_lab, case):
    argv, kills, every, words = CASES[case]
    assert run(argv, tmp_path / "whole", *words) == 0
    words = (*words, "--checkpoint.steps", str(every))
    for at in kills:
        killed(my_lab, argv, tmp_path / "parts", at, *words)
    assert run(argv, tmp_path / "parts", *words) == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")
    if every == 1:
        last = steps(tmp_path / "whole")[-1]
        assert steps(tmp_path / "parts") == [last - 2, last - 1, last]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*every file is read")
@pytest.mark.parametrize(("at", "workers"), [(3, "2"), (5, "2"), (5, "0")])
def test_a_stream(tmp_path, my_lab, at, workers):
    """Within an epoch of four steps, and at its end."""
    pictures = []
    for i in range(300):
        file = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "png")
        pictures.append(file.getvalue())
    pq.write_table(pa.table({"image": pictures}), tmp_path / "train.parquet")
    words = ["--data.source", str(tmp_path / "train.parquet"), "--data.stream", "256", "--data.batch_size"]
    words += ["64", "--data.cache", "false", "--data.num_workers", workers]
    assert run(IMAGES, tmp_path / "whole", *words) == 0
    words += ["--checkpoint.steps", "1"]
    killed(my_lab, IMAGES, tmp_path / "parts", at, *words)
    assert run(IMAGES, tmp_path / "parts", *words) == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


TABLE = ("--probe.every", "1", "--probe.table", "true", "--probe.linear", "false", "--probe.per_class", "[]")
SAVING = run_checkpoints.RunCheckpoints
MOMENTS = {
    "the data are opened": (pretraining_data, "open_source", 1),
    "before the trainer's start": (SAVING, "setup", 1),
    "the first step": (Pretraining, "training_step", 1),
    "within an epoch": (Pretraining, "training_step", 6),
    "an epoch's last step": (Pretraining, "training_step", 4),
    "an epoch's end": (SAVING, "on_train_epoch_end", 2),
    "a look of the online probe": (callbacks, "knn", 2),
    "the last look of the online probe": (callbacks, "knn", 3),
    "a save": (run_checkpoints, "write_safely", 2),
    "the last step": (Pretraining, "training_step", 12),
    "the end of the training": (SAVING, "on_train_end", 1),
    "the table": (report, "compare", 1),
}
QUICK_MOMENTS = ("the data are opened", "within an epoch", "the last look of the online probe", "the table")


@pytest.fixture
def not_ignored():
    """Signals as a terminal leaves them: in the background of a shell some are ignored."""
    kept = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def at(monkeypatch, moment, do):
    """Call ``do`` just before a moment of the next run."""
    owner, name, nth = MOMENTS[moment]
    original, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments, **options):
        if next(calls) == nth:
            do()
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param(moment, number, marks=() if moment in QUICK_MOMENTS else pytest.mark.slow)
        for moment, number in zip(MOMENTS, itertools.cycle(SIGNALS), strict=False)
    ],
)
def test_a_signal_at_any_moment_saves_and_ends(
    tmp_path, my_lab, not_ignored, capfd, monkeypatch, moment, number
):
    words = (*TABLE, "--checkpoint.steps", "3")
    assert run(IMAGES, tmp_path / "whole", *words) == 0
    capfd.readouterr()
    before = signal.getsignal(number)
    at(monkeypatch, moment, lambda: signal.raise_signal(number))
    assert run(IMAGES, tmp_path / "parts", *words) == (130 if number == signal.SIGINT else TRY_AGAIN)
    assert signal.getsignal(number) == before
    said = capfd.readouterr().err
    assert said.count(f"stopped by {number.name}") == 1
    assert "Traceback" not in said
    again = (
        "the same command starts again" if not list((tmp_path / "parts").glob("*/*.ckpt")) else "continues"
    )
    assert again in said.splitlines()[-1]
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    assert run(IMAGES, tmp_path / "parts", *words) == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")
    tables = [(tmp_path / name / "table.txt").read_text() for name in ("parts", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.batch_size", "200"), "data.batch_size 200 (it has 300)"),
        (("--trainer.max_epochs", "5"), "--resume extend continues it"),
        (("--model.projector", "[16, 32]"), "model.projector [16, 32]"),
        (("--trainer.max_epochs", "2", "--resume", "extend"), "is extended, not shortened"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_written(tmp_path, my_lab, capfd, words, message):
    killed(my_lab, IMAGES, tmp_path / "run", 6, "--checkpoint.steps", "1")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capfd.readouterr()
    assert run(IMAGES, tmp_path / "run", *words) == 2
    assert message in capfd.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_longer_run_follows_a_schedule_of_its_length(tmp_path, my_lab, capfd):
    assert run(IMAGES, tmp_path / "run") == 0
    longer = ("--trainer.max_epochs", "6", "--resume", "extend")
    assert run(IMAGES, tmp_path / "run", *longer) == 0
    assert "follows a schedule for max_epochs 6" in capfd.readouterr().out
    assert run(IMAGES, tmp_path / "whole", "--trainer.max_epochs", "6") == 0

    def rates(out):
        with (out / "metrics.csv").open(encoding="utf-8") as file:
            return [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]

    now, whole = rates(tmp_path / "run"), rates(tmp_path / "whole")
    assert now[3:] == pytest.approx(whole[3:])
    assert now[3] > 10 * now[2]  # where the shorter schedule had ended
    assert steps(tmp_path / "run")[-1] == 24


def test_a_run_is_continued_by_its_directory_alone(tmp_path, my_lab):
    assert run(IMAGES, tmp_path / "whole") == 0
    killed(my_lab, IMAGES, tmp_path / "parts", 6, "--checkpoint.steps", "1")
    assert image_pretrain.main(["--run_dir", str(tmp_path / "parts")]) == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


def without_loops(path):
    state = torch.load(path, weights_only=True)
    del state["loops"], state["random_states"]
    torch.save(state, path)


def test_a_checkpoint_that_lacks_a_part_is_not_used(tmp_path, my_lab, capfd):
    killed(my_lab, IMAGES, tmp_path / "run", 3, "--checkpoint.steps", "1", "--checkpoint.keep", "1")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    without_loops(checkpoint)
    assert run(IMAGES, tmp_path / "run") == 2
    said = capfd.readouterr().err
    assert "is not used: it lacks loops, random_states" in said
    assert "none of the 1 checkpoints in" in said.splitlines()[-1]


def test_other_data_are_refused(tmp_path, my_lab, capfd):
    pictures = tmp_path / "pictures"
    for i in range(340):
        (pictures / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / "ab"[i % 2] / f"{i}.png")
    words = ("--data.source", str(pictures), "--data.batch_size", "60")
    killed(my_lab, IMAGES, tmp_path / "run", 3, *words, "--checkpoint.steps", "1")
    for i in range(10):
        (pictures / "a" / f"{2 * i}.png").unlink()
    capfd.readouterr()
    assert run(IMAGES, tmp_path / "run", *words) == 2
    assert "the training data have changed" in capfd.readouterr().err


@pytest.mark.slow
def test_under_slurm_the_scheduler_is_told_by_the_status(tmp_path, my_lab, monkeypatch, capfd):
    job = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0",
           "NODELIST": "localhost"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    my_lab.count, my_lab.kill_at, my_lab.how = 0, 2 * 6, signal.SIGUSR1
    assert run(IMAGES, tmp_path / "run") == TRY_AGAIN
    assert "stopped by SIGUSR1 at step 6" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints", "config.yaml", "initial.safetensors", "metrics.csv"
    ]  # fmt: skip
    my_lab.kill_at = None
    assert run(IMAGES, tmp_path / "run") == 0


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    os.truncate(path, 0)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def with_code(path):
    state = torch.load(path, weights_only=True)
    torch.save({**state, "harm": Harm()}, path)


@pytest.mark.parametrize(
    "damage", [truncate, *(pytest.param(each, marks=pytest.mark.slow) for each in (flip, empty, with_code))]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path, my_lab, capfd, monkeypatch, damage
):
    words = ("--checkpoint.steps", "1")
    assert run(IMAGES, tmp_path / "whole") == 0
    killed(my_lab, IMAGES, tmp_path / "parts", 8, *words)
    newest = tmp_path / "parts" / "checkpoints" / "step=000000007.ckpt"
    damage(newest)
    (newest.parent / "step=000000008.ckpt.partial").write_bytes(b"half")
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    here = os.path.relpath(os.path.dirname(os.path.dirname(__file__)) + "/..", tmp_path)
    argv = [word.replace("configs/", f"{here}/configs/") for word in IMAGES]
    assert image_pretrain.main([*argv, "--run_dir", "parts", *words]) == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warned) == 1
    assert "step=000000007.ckpt is not used: " in warned[0]
    assert not (tmp_path / "harm").exists()
    assert left(tmp_path / "parts") == left(tmp_path / "whole")
    assert not list((tmp_path / "parts" / "checkpoints").glob("*.partial"))


def test_no_whole_checkpoint_is_an_error(tmp_path, my_lab, capfd):
    killed(my_lab, IMAGES, tmp_path / "run", 3, "--checkpoint.steps", "1")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        truncate(path)
    assert run(IMAGES, tmp_path / "run") == 2
    assert "none of the 2 checkpoints in" in capfd.readouterr().err.splitlines()[-1]


def test_a_disk_that_refuses(tmp_path, my_lab, capfd, monkeypatch):
    """Half a checkpoint fits: the run ends with one line, and what was there stays."""
    write = safe_files.write_safely

    def full(path, content):
        if path.name == "step=000000006.ckpt":

            def half(file):
                content(file)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return write(path, half)
        return write(path, content)

    monkeypatch.setattr(run_checkpoints, "write_safely", full)
    assert run(IMAGES, tmp_path / "run", "--checkpoint.steps", "3") == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "cannot write the checkpoint" in said
    assert "No space left on device" in said
    assert "last good checkpoint: " in said
    assert "step=000000003.ckpt" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step=000000003.ckpt"]
    monkeypatch.undo()
    assert run(IMAGES, tmp_path / "run", "--checkpoint.steps", "3") == 0


def test_a_folder_with_something_else_is_refused(tmp_path, my_lab, capfd):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    assert run(IMAGES, tmp_path / "thesis") == 2
    assert "is not empty and holds no run to continue" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--checkpoint.keep", "0"), "keep >= 1"), (("--checkpoint.steps", "0"), "steps >= 1")],
)
def test_wrong_options(tmp_path, my_lab, capfd, words, message):
    assert run(IMAGES, tmp_path / "run", *words) == 2
    assert message in capfd.readouterr().err
