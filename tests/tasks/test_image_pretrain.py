"""The command line: a run from end to end, a user's own encoder, and wrong inputs in one line each."""

import csv
import sys

import pytest
import torch

from bt_multimodal.encoder_file import load_encoder
from tasks import image_linear, image_pretrain

DIGITS = ["fit", "--config", "configs/image/digits.yaml", "--trainer.max_epochs", "2",
          "--model.warmup_epochs", "1",
          "--model.projector", "[32, 32]", "--model.encoder.widths", "[8, 16]"]  # fmt: skip

MY_LAB = """
from torch import nn

class Flat(nn.Module):
    def __init__(self, width: int = 24):
        super().__init__()
        self.features_dim = width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())

    def forward(self, view):
        return self.layers(view)

class NoWidth(nn.Module):
    def forward(self, view):
        return view.flatten(1)

class WrongWidth(NoWidth):
    features_dim = 5

class Strict(nn.Module):
    features_dim = 4
    def forward(self, view):
        raise RuntimeError("I take sounds only")
"""


def run(argv):
    return image_pretrain.main(argv)


def evaluate(argv):
    return image_linear.main(argv)


def test_run_directory_explains_itself_and_evaluates(tmp_path, capsys):
    out = tmp_path / "run"
    assert run([*DIGITS, "--run_dir", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names >= {"config.yaml", "metrics.csv", "checkpoints", "encoder.safetensors", "curves.png",
                     "features.png", "table.txt", "table.json"}  # fmt: skip
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    table = capsys.readouterr().out
    assert all(
        word in table
        for word in ("raw pixels", "untrained encoder", "trained encoder", "360 test images (20 % held out)")
    )

    assert evaluate(["--encoder", str(out), "--data.source", "sklearn:digits"]) == 0
    evaluated = capsys.readouterr().out
    final, again = (
        [float(word) for word in line.replace("±", " ").split() if word[0].isdigit()]
        for text in (table, evaluated)
        for line in text.splitlines()
        if line.startswith("trained")
    )
    # The same figures from the exported file; rounding may decide one of the 360.
    assert len(final) == 4
    assert again == pytest.approx(final, abs=0.35)

    # The same command goes on from the checkpoint; there is nothing left to train.
    before = load_encoder(out).encoder.state_dict()
    assert run([*DIGITS, "--run_dir", str(out)]) == 0
    after = load_encoder(out).encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        assert len([row for row in csv.DictReader(file) if row["loss"]]) == 2  # history kept


def test_custom_encoder_by_class_path_trains_and_loads(tmp_path, my_lab):
    out = tmp_path / "run"
    argv = ["fit", "--config", "configs/image/digits.yaml", "--trainer.max_epochs", "2", "--model.projector",
            "[32, 32]", "--model.encoder", "my_lab.Flat", "--model.encoder.width", "12",
            "--model.warmup_epochs", "1", "--run_dir", str(out)]  # fmt: skip
    assert run(argv) == 0
    with pytest.raises(ValueError, match="--trust my_lab"):
        load_encoder(out)
    encoder, views = load_encoder(out, trust="my_lab")
    assert type(encoder).__name__ == "Flat"
    assert encoder(views.clean_batch(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))).shape == (3, 12)


WRONG = {
    "misspelt key": (["--data.sorce", "x"], "did you mean data.source?"),
    "no such class": (["--model.encoder", "my_lab.Missing"], "my_lab.Missing"),
    "no such module": (["--model.encoder", "no_lab.Missing"], "no_lab.Missing"),
    "misspelt argument": (["--model.encoder.wdths", "[8]"], "wdths"),
    "no features_dim": (["--model.encoder", "my_lab.NoWidth"], "set self.features_dim"),
    "wrong features_dim": (["--model.encoder", "my_lab.WrongWidth"], "says features_dim = 5"),
    "encoder fails": (["--model.encoder", "my_lab.Strict"], "does not take these views: I take sounds only"),
    "projector does not fit": (
        ["--model.projector", '{"class_path": "bt_multimodal.Projector", "init_args": {"sizes": [7, 8]}}'],
        "does not fit",
    ),
    "batch above data": (["--data.batch_size", "5000"], "batch_size 5000"),
    "not a number": (["--data.batch_size", "many"], "data.batch_size"),
    "missing folder": (["--data.source", "./nowhere"], "nowhere"),
    "empty folder": (["--data.source", "{tmp}/empty"], "empty"),
    "no image inside": (["--data.source", "{tmp}/broken", "--data.batch_size", "2"], "text.png"),
    "no label column": (
        ["--data.source", "{tmp}/list.csv", "--data.label_column", "lable", "--data.batch_size", "2"],
        "lable",
    ),
    "accumulate": (["--trainer.accumulate_grad_batches", "2"], "another objective"),
    "accumulate in a file": (["--config", "{tmp}/accumulate.yaml"], "another objective"),
    "sharded weights": (["--trainer.strategy", "fsdp"], "use ddp, or FSDP in a loop of your own"),
    "form": (["--model.loss.form", "grim"], "grim"),
    "one of two kinds of loss": (
        ["--model.loss.lamb", "0"],
        "error: model.loss: bt_multimodal.BarlowTwinsLoss has no key lamb; did you mean lambd?",
    ),
    "a word beside the keys": (["train"], "unrecognized arguments: train"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(case, tmp_path, my_lab, capsys):
    words, expected = WRONG[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "a").mkdir(parents=True)
    for i in range(8):
        (tmp_path / "broken" / "a" / f"{i}text.png").write_text("this is no image")
    (tmp_path / "list.csv").write_text("image,label\nbroken/a/0text.png,1\n")
    (tmp_path / "accumulate.yaml").write_text("trainer: {accumulate_grad_batches: 2}")
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    out = tmp_path / "run"
    argv = words if case == "unknown command" else [*DIGITS, "--run_dir", str(out), *words]
    status = run(argv)
    message = capsys.readouterr().err
    assert status == 2
    assert expected in message
    assert len(message.splitlines()) == 1
    assert not out.exists()


def test_help_answers_without_lightning(tmp_path):
    import subprocess

    code = (
        "import sys; sys.argv[1:] = ['--help']; import runpy\n"
        "try: runpy.run_path('tasks/image_pretrain.py', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bt-multimodal image pretrain" in done.stdout
