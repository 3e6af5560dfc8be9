"""What a run notices of itself: numbers that are none, representations that collapse, damaged records."""

import os

import numpy as np
import pytest
from PIL import Image

from tasks import image_pretrain

DIGITS = ["fit", "--config", "configs/image/digits.yaml", "--trainer.max_epochs", "3",
          "--model.warmup_epochs", "1", "--model.projector", "[16, 16]", "--data.batch_size", "64",
          "--probe.table", "false", "--probe.every", "100", "--checkpoint.steps", "5"]  # fmt: skip
MY_LAB = """
import torch
from torch import nn

class Encoder(nn.Module):
    features_dim = 16

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.count = 0

    def forward(self, view):
        self.count += self.training
        return self.spoil(self.layers(view))

class NanLoss(Encoder):
    def spoil(self, x):
        return x * float("nan") if self.count == 2 * 21 else x

class InfGradient(Encoder):
    def spoil(self, x):
        if self.count == 2 * 11:
            x.register_hook(lambda grad: grad * float("inf"))
        return x

class LateNan(Encoder):
    # Between two looks at loss and gradient.
    def spoil(self, x):
        return x * float("nan") if self.count == 2 * 8 else x

class Constant(Encoder):
    def spoil(self, x):
        return x * 1e-6 + 1

class OneDimension(Encoder):
    def spoil(self, x):
        return x.sum(1, keepdim=True) * torch.arange(1, 17)
"""


def run(out, *words):
    return image_pretrain.main([*DIGITS, "--run_dir", str(out), *words])


NUMBERS = {
    "loss": ("NanLoss", "the loss is nan at step 20 ", "step=000000020.ckpt"),
    "gradient": ("InfGradient", "the gradient of twins.encoder.layers.1.weight is ", "step=000000010.ckpt"),
    "weights": ("LateNan", "the weights twins.encoder.layers.1.weight are not finite", "step=000000005.ckpt"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_are_none(tmp_path, my_lab, capfd, case):
    encoder, message, kept = NUMBERS[case]
    assert run(tmp_path / "run", "--model.encoder", f"my_lab.{encoder}") == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert message in said
    assert f"last good checkpoint: {tmp_path / 'run' / 'checkpoints' / kept}" in said
    newest = max(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert newest == kept  # what is no number was not saved


@pytest.mark.parametrize(
    ("encoder", "message"),
    [("Constant", "100 % are dead"), ("OneDimension", "0 % are dead, effective rank 1.0")],
)
def test_a_collapse(tmp_path, my_lab, capfd, encoder, message):
    words = ("--model.encoder", f"my_lab.{encoder}", "--trainer.max_epochs", "7")
    assert run(tmp_path / "run", *words) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "error: the representations have collapsed at step 101 (epoch " in said
    assert message in said
    assert "step=000000100.ckpt" in said
    assert run(tmp_path / "warned", *words, "--probe.on_collapse", "warn") == 0
    warned = capfd.readouterr()
    assert (warned.out + warned.err).count("warning: the representations have collapsed") == 1


def test_a_healthy_run_is_left_alone(tmp_path, my_lab, capfd):
    words = ("--trainer.max_epochs", "7", "--model.encoder.widths", "[8, 16]")
    assert run(tmp_path / "run", *words) == 0
    assert "collapsed" not in capfd.readouterr().err


@pytest.mark.parametrize(("every", "status"), [(200, 0), (20, 2)], ids=["0.5 %", "5 %"])
@pytest.mark.filterwarnings("ignore:damaged record")
def test_damaged_records(tmp_path, capfd, every, status):
    generator = np.random.default_rng(0)
    for i in range(400):
        path = tmp_path / "pictures" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
        if i % every == 0:
            os.truncate(path, path.stat().st_size // 2)
    words = ("--data.source", str(tmp_path / "pictures"), "--data.cache", "false", "--data.label_column",
             "label", "--model.encoder.widths", "[8, 16]")  # fmt: skip
    assert run(tmp_path / "run", *words) == status
    if status:
        assert "over the allowed" in capfd.readouterr().err.splitlines()[-1]
