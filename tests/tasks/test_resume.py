"""A run that is stopped at any step and continued ends in the weights of one that never was, bit for bit."""

import csv
import errno
import io
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
from bt_multimodal.training import run_checkpoints
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
    with pytest.raises(RuntimeError, match="killed"):
        run(argv, out, *words)
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
        Image.fromarray(np.full((8, 8), i % 256, np.uint8)).save(file, "png")
        pictures.append(file.getvalue())
    pq.write_table(pa.table({"image": pictures}), tmp_path / "train.parquet")
    words = ["--data.source", str(tmp_path / "train.parquet"), "--data.stream", "256", "--data.batch_size"]
    words += ["64", "--data.cache", "false", "--data.num_workers", workers]
    assert run(IMAGES, tmp_path / "whole", *words) == 0
    words += ["--checkpoint.steps", "1"]
    killed(my_lab, IMAGES, tmp_path / "parts", at, *words)
    assert run(IMAGES, tmp_path / "parts", *words) == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends(tmp_path, my_lab, capfd, number):
    assert run(IMAGES, tmp_path / "whole") == 0
    my_lab.count, my_lab.kill_at, my_lab.how = 0, 2 * 6, number
    before = signal.getsignal(number)
    assert run(IMAGES, tmp_path / "parts") == TRY_AGAIN == 75
    assert signal.getsignal(number) == before
    said = capfd.readouterr().err.splitlines()[-1]
    assert f"stopped by {number.name} at step 6" in said
    assert steps(tmp_path / "parts") == [6]
    my_lab.kill_at = None
    assert run(IMAGES, tmp_path / "parts") == 0
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


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
