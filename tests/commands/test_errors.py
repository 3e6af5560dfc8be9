"""Whatever a user brings to a command that is wrong ends in one line that says what to do."""

import os
import sys
from pathlib import Path

import pytest

from bt_multimodal.commands.near_keys import near_key
from encoders.command_line import main
from tasks import image_pretrain

MY_LAB = """
import torch
from torch import nn
from bt_multimodal.augmentation_set import AugmentationSet

class Flat(nn.Module):
    features_dim = 4
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)
    def forward(self, view):
        return self.layer(view.flatten(1))

class Raises(nn.Module):
    def __init__(self):
        raise RuntimeError("no weights here")

class NoKey(nn.Module):
    def __init__(self):
        raise KeyError("width")

class AssertsAtOnce(nn.Module):
    def __init__(self):
        assert 1 == 2

class Nothing(Flat):
    def forward(self, view):
        return None

class Two(Flat):
    def forward(self, view):
        return super().forward(view), view

class Named(Flat):
    def forward(self, view):
        return {"features": super().forward(view)}

class Asserts(Flat):
    def forward(self, view):
        assert view.shape[-1] == 224, f"Input height ({view.shape[-1]}) doesn't match model (224)"

class Silent(Flat):
    def forward(self, view):
        assert view.shape[-1] == 8
        return super().forward(view)

class Forgets(Flat):
    def forward(self, view):
        return self.layers(view)

class Sparse(Flat):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(300, 4, sparse=True)

class NoModule:
    features_dim = 3

class Larger(AugmentationSet):
    draws = 1
    def decode(self, raw):
        return torch.as_tensor(raw)[None].float()
    def draw(self, u, view):
        return {"gain": u[:, 0]}
    def on_batch(self, data, parameters, view):
        return data * parameters["gain"][:, None, None, None]
    def clean_batch(self, data):
        return nn.functional.interpolate(data, 10)

class NoDraw(AugmentationSet):
    draws = 1
    def decode(self, raw):
        return raw
    def on_batch(self, data, parameters, view):
        return data
    def clean_batch(self, data):
        return data

class CannotMeasure(Larger):
    def measure(self, records):
        raise KeyError("mean")
"""

DIGITS = ["--config", "image/digits", "--trainer.max_epochs", "1", "--model.warmup_epochs", "0",
          "--model.projector", "[16, 16]", "--model.encoder.widths", "[4]"]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with a user's module in it."""
    (tmp_path / "my_lab.py").write_text(MY_LAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_lab", None)


def status_of(command, argv):
    try:
        return command(argv)
    except SystemExit as error:  # argparse's way
        return error.code


def line_of(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1, error
    assert error.startswith("error: ")
    return error


# A key, a value, words of the line.
VALUES = [
    ("trainer.accelerator", "tpu", "cpu, cuda and mps"),
    ("trainer.accelerator", "nonsense", "nonsense"),
    ("trainer.devices", "0", "a number from 1"),
    ("trainer.devices", "-1", "on CPUs takes a number of processes"),
    ("trainer.devices", "banana", "not banana"),
    ("trainer.devices", "100000", "processor cores"),
    ("trainer.devices", "1.5", "not 1.5"),
    ("trainer.devices", "[]", "not []"),
    ("trainer.num_nodes", "0", "num_nodes"),
    ("trainer.precision", "bf16-true", "bf16-mixed"),
    ("trainer.precision", "16-true", "16-mixed"),
    ("trainer.precision", "64-true", "32-true"),
    ("trainer.precision", "64", "32-true"),
    ("trainer.precision", "transformer-engine", "does not fit"),
    ("trainer.precision", "banana", "takes 64, 32, 16,"),
    ("trainer.max_time", "banana", "DAYS:HOURS:MINUTES:SECONDS"),
    ("trainer.max_time", "12", "DAYS:HOURS:MINUTES:SECONDS"),
    ("trainer.max_time", "00:00:00:00", "no time"),
    ("trainer.max_time", "{eons: 2}", "weeks"),
    ("trainer.max_epochs", "ten", "takes a whole number or null, not ten"),
    ("trainer.max_epochs", "-2", "max_epochs"),
    ("trainer.max_epochs", "0", "the run has no step"),
    ("trainer.max_epochs", "null", "give trainer.max_epochs or trainer.max_steps"),
    ("trainer.max_steps", "-2", "max_steps"),
    ("trainer.limit_train_batches", "0", "the run has no step"),
    ("trainer.limit_train_batches", "-1", "limit_train_batches"),
    ("trainer.limit_train_batches", "banana", "not banana"),
    ("trainer.check_val_every_n_epoch", "0", "above 0"),
    ("trainer.val_check_interval", "banana", "val_check_interval"),
    ("trainer.strategy", "nonsense", "take auto, ddp"),
    ("trainer.strategy", "ddp_spawn", "use ddp"),
    ("trainer.profiler", "banana", "profiler"),
    ("trainer.gradient_clip_val", "-1", "0 or more"),
    ("trainer.gradient_clip_algorithm", "banana", "banana"),
    ("trainer.barebones", "true", "leaves out the checkpoints"),
    ("trainer.fast_dev_run", "-1", "fast_dev_run"),
    ("trainer", "banana", "a group of keys: trainer.accelerator"),
    ("seed", "null", "seed takes a whole number, not null"),
    ("seed", "banana", "not banana"),
    ("seed", "1.5", "not 1.5"),
    ("seed", "9" * 30, "64 bits"),
    ("seed", str(2**63), "64 bits"),
    ("seed", os.fsdecode(b"caf\xe9"), "seed"),
    ("seed.x", "3", "seed has no keys below it"),
    ("rank_timeout", "-1", "above 0"),
    ("resume", "runs/old", "--run_dir runs/old"),
    ("checkpoint", "last.ckpt", "--run_dir last.ckpt"),
    ("checkpoint.keep", "0", "keep >= 1"),
    ("probe.every", "0", "every >= 1"),
    ("probe.per_class", "[0]", "per_class >= 1"),
    ("probe.on_collapse", "shrug", "takes end or warn, not shrug"),
    ("model.optimizer", "nothing", "there is no class 'nothing'"),
    ("model.optimizer", "AdmW", "did you mean torch.optim.AdamW?"),
    ("model.optimizer", "torch.optim.Adamw", "did you mean torch.optim.Adam"),
    ("model.optimizer", "torch.nn.Linear", "no subclass of torch.optim.Optimizer"),
    ("model.optimizer", "null", "takes a class path"),
    ("model.optimizer.lr", "fast", "model.optimizer.lr takes a number, not fast"),
    ("model.optimizer.lr", "nan", "not nan"),
    ("model.optimizer.lrr", "1", "torch.optim.AdamW has no key lrr; did you mean lr?"),
    ("model.optimizer.betas", "0.9", "takes a list, not 0.9"),
    ("model.encoder", "AudioNNT", "did you mean encoders.audio.encoders.AudioNTT?"),
    ("model.encoder", "ConvNot", "did you mean encoders.image.encoders.ConvNet?"),
    ("model.encoder", "encoders.imgae.encoders.ConvNet", "did you mean encoders.image.encoders.ConvNet?"),
    ("model.encoder", "my_lab.Flatt", "did you mean my_lab.Flat?"),
    ("model.encoder", "my_lab.NoModule", "no subclass of nn.Module"),
    ("model.encoder", "nowhere.X", "there is no class 'nowhere.X'"),
    ("model.encoder", "a..b", "a..b"),
    ("model.encoder", "", "there is no class ''"),
    ("model.encoder", "null", "takes a class path"),
    ("model.encoder", "[1]", "takes a class path"),
    ("model.encoder", "torch.nn.Linear", "in_features"),
    ("model.encoder", "my_lab.Raises", "Raises cannot be built: RuntimeError: no weights here"),
    ("model.encoder", "my_lab.NoKey", "NoKey cannot be built: KeyError: 'width'"),
    ("model.encoder", "my_lab.AssertsAtOnce", "assert 1 == 2"),
    ("model.encoder", "my_lab.Nothing", "must return a tensor [B, 4], not a NoneType"),
    ("model.encoder", "my_lab.Two", "not a tuple"),
    ("model.encoder", "my_lab.Named", "not a dict"),
    ("model.encoder", "my_lab.Asserts", "does not take these views: Input height (8)"),
    ("model.encoder", "my_lab.Forgets", "has no attribute 'layers'"),
    ("model.encoder", "my_lab.Sparse", "encoder.table has sparse gradients, which AdamW"),
    ("model.encoder.widths", "banana", "takes a list, not banana"),
    ("model.encoder.widths", "[-1]", "ConvNet cannot be built"),
    ("model.encoder.wdths", "[4]", "did you mean widths?"),
    ("views", "DigitView", "did you mean encoders.image.views.DigitViews?"),
    ("views", "my_lab.NoDraw", "lacks draw"),
    ("views", "my_lab.CannotMeasure", "KeyError: 'mean'; --traceback shows where"),
    ("model.projector", "[]", "two or more positive widths"),
    ("model.projector", "[-1]", "two or more positive widths"),
    ("model.projector", "banana", "takes a list of whole numbers or a class path, not banana"),
    ("model.projector", "[1, 2", "not [1, 2"),
    ("model.projector", "[" * 10_000 + "]" * 10_000, "more than 50 deep"),
    ("model.projector", "&a [*a]", "without an end"),
    ("model.bias_lr_ratio", "-1", "0 or more"),
    ("model.loss.lambd", "-1", "lambd >= 0"),
    ("model.loss.lambd", "x", "model.loss.lambd takes a number, not x"),
    ("model.loss", "nothing", "there is no class 'nothing'"),
    ("model.lr_by_batch", "x", "not x"),
    ("data.batch_size", "0", "choose one from 2"),
    ("data.batch_size", "1", "choose one from 2"),
    ("data.batch_size", "banana", "data.batch_size takes a whole number, not banana"),
    ("data.batch_size", "", "not an empty text"),
    ("data.cache", "perhaps", "takes true or false, not perhaps"),
    ("data.num_workers", "-1", "0 or more"),
    ("model.accumulate", "1000", "above the batch of 256"),
    ("data.source", " a  'b' ", "does not exist"),
    ("data", "banana", "a group of keys: data.source"),
    ("config", "image/digit", "did you mean the shipped image/digits?"),
    ("config", "nowhere.yaml", "there is no config file 'nowhere.yaml'"),
    ("config", ".", "is a folder"),
    ("config", "{sede: 1}", "unknown key sede; did you mean seed?"),
    ("model.optimizer.betas", "[0.1, 0.2, 0.3]", "takes a list with 2 elements"),
    ("config", "", "needs a YAML file"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words"), VALUES, ids=[f"{k} {v[:30]!r}" for k, v, _ in VALUES])
def test_a_wrong_value(key, value, words, folder, capsys):
    assert status_of(image_pretrain.main, [*DIGITS, f"--{key}={value}", "--run_dir", "run"]) in (1, 2)
    assert words in line_of(capsys)
    assert not Path("run").exists()


def test_no_gpu(folder, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for words in (["gpu"], ["cuda"], ["gpu", "--trainer.devices", "4"]):
        assert image_pretrain.main([*DIGITS, "--trainer.accelerator", *words]) == 2
        assert "finds no GPU on this machine; take --trainer.accelerator cpu" in line_of(capsys)


def test_evaluation_has_another_size(folder, capsys):
    argv = [*DIGITS, "--views", "my_lab.Larger", "--model.encoder", "my_lab.Silent"]
    assert image_pretrain.main(argv) == 2
    assert "does not take the clean views of evaluation: AssertionError: in " in line_of(capsys)


KEYS = {
    "lr": "model.optimizer.lr",
    "learning-rate": "model.optimizer.lr",
    "weight_decay": "model.optimizer.weight_decay",
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "trianer.max_epochs": "trainer.max_epochs",
    "trainer.epochs": "trainer.max_epochs",
    "max-steps": "trainer.max_steps",
    "batch-size": "data.batch_size",
    "batch_size": "data.batch_size",
    "data.batchsize": "data.batch_size",
    "bs": "data.batch_size",
    "data.batch-size": "data.batch_size",
    "Data.Batch_Size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "workers": "data.num_workers",
    "num_workers": "data.num_workers",
    "gpus": "trainer.devices",
    "devices": "trainer.devices",
    "device": "trainer.accelerator",
    "fp16": "trainer.precision",
    "output": "run_dir",
    "output_dir": "run_dir",
    "out": "run_dir",
    "resume_from_checkpoint": "run_dir",
    "ckpt_path": "run_dir",
    "data_dir": "data.source",
    "dataset": "data.source",
    "data.sorce": "data.source",
    "arch": "model.encoder",
    "encoder": "model.encoder",
    "model.enocder": "model.encoder",
    "lambda": "model.loss.lambd",
    "warmup": "model.warmup_epochs",
    "sed": "seed",
    "random_seed": "seed",
    "augmentations": "views",
    "cfg": "config",
    "momentum": "model.optimizer.momentum",
    "model.lr": "model.optimizer.lr",
    "gradient_accumulation_steps": "model.accumulate",
}


@pytest.mark.parametrize(("given", "meant"), KEYS.items())
def test_an_unknown_key_leads_to_the_right_one(given, meant, folder, capsys):
    assert image_pretrain.main([*DIGITS, f"--{given}", "1"]) == 2
    assert f"unknown key {given}; did you mean {meant}?" in line_of(capsys)
    Path("mine.yaml").write_text(f"{given}: 1\n")
    assert image_pretrain.main(["--config", "mine.yaml"]) == 2
    assert line_of(capsys) == f"error: mine.yaml: unknown key {given}; did you mean {meant}?\n"


@pytest.mark.parametrize("name", ["zzzzzz", "", "-", "é", "x.y.z", "1"])
def test_nothing_is_near(name):
    assert near_key(name, ["seed", "data.source"]) is None


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "--seed", "1"], ["--resume="]])
def test_resume_alone(words, folder, capsys):
    assert image_pretrain.main([*DIGITS, *words]) == 2
    assert "name its directory: --run_dir PATH" in line_of(capsys)


@pytest.mark.parametrize(
    "words", [["--seed"], ["-x"], ["---seed", "1"], ["word"], ["--"], ["-seed", "3"], ["--=3"]]
)
def test_words_that_are_no_keys(words, folder, capsys):
    assert image_pretrain.main([*DIGITS, *words]) == 2
    line_of(capsys)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "empty": (b"", "is empty"),
    "a comment": (b"# later\n", "is empty"),
    "a list": (b"- a\n- b\n", "holds a list"),
    "a text": (b"hello world", "holds 'hello world'"),
    "a number": (b"3", "holds '3'"),
    "bytes": (bytes(range(256)), "not UTF-8 text (byte 129)"),
    "latin-1": ("# café\nseed: 1\n".encode("latin-1"), "save it as UTF-8"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "save it as UTF-8"),
    "a zero": (b"seed: 1\0\n", "is no YAML"),
    "tabs": (b"data:\n\tbatch_size: 4\n", "line 2, column 1: a tab"),
    "a key twice": (b"seed: 1\nseed: 2\n", "line 2: seed is given twice"),
    "a deep key twice": (b"model: {accumulate: 1, accumulate: 2}\n", "accumulate is given twice"),
    "no value": (b"seed:\n", "seed has no value"),
    "no word": (b"1: 2\n", "the key 1 is no word"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "several documents"),
    "half of it": (b'{"seed": 1', "is no YAML"),
    "a deep unknown key": (
        b"model: {optimizer: {class_path: torch.optim.SGD, init_args: {lrr: 4}}}\n",
        "lrr",
    ),
    "an unknown group": (b"trianer: {max_epochs: 4}\n", "did you mean trainer.max_epochs?"),
    "a list for a group": (b"data: [1]\n", "data"),
    "a list for the trainer": (b"trainer: [1]\n", "trainer is a group of keys"),
    "no name": (b"'': 3\n", "unknown key ''"),
    "another config": (b"config: image/digits\n", "--config twice"),
    "accumulation": (b"trainer: {accumulate_grad_batches: 2}\n", "another objective"),
    "code": (b"seed: !!python/object/apply:os.system ['touch ran']\n", "constructor"),
    "a cycle": (b"data: &a {x: *a}\n", "*a stands for what it is in"),
    "a cycle of lists": (b"data: &a [*a]\n", "without an end"),
    "a bomb": (BOMB.encode(), "more than 10,000 values"),
    "10,000 brackets": (b"seed: " + b"[" * 10_000 + b"]" * 10_000, "50 deep"),
    "10,000 braces": (b"{a: " * 10_000 + b"1" + b"}" * 10_000, "50 deep"),
    "10,000 dashes": (b"- " * 10_000 + b"1", "50 deep"),
    "no end": (b"[" * 1_000_000, "50 deep"),
    "3 MB": (b"# " + b"x" * 3_000_000, "over 2 MB"),
    "many values": (b"data: {source: [" + b"a," * 15_000 + b"]}", "more than 10,000 values"),
}


@pytest.mark.parametrize("nested", ["", "views"])
@pytest.mark.parametrize("case", FILES)
def test_a_config_file_that_cannot_be_right(case, nested, folder, capsys):
    content, words = FILES[case]
    Path("mine.yaml").write_bytes(content)
    key = f"--{nested or 'config'}"
    assert image_pretrain.main([*DIGITS, key, "mine.yaml", "--run_dir", "run"]) == 2
    line = line_of(capsys)
    assert nested or words in line
    assert not Path("run").exists()
    assert not Path("ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO on this system")
@pytest.mark.parametrize("key", ["config", "data", "views", "model.encoder"])
def test_what_is_no_regular_file_is_not_read(key, folder, capsys):
    os.mkfifo("pipe.yaml")
    assert image_pretrain.main([*DIGITS, f"--{key}", "pipe.yaml", "--run_dir", "run"]) == 2
    line_of(capsys)


PLAIN = [
    (["image", "linear", "--encodr", "x"], "unknown key encodr; did you mean encoder?"),
    (["image", "linear", "--encoder", "x", "--source", "y"], "did you mean data.source?"),
    (["image", "linear", "--encoder", "x", "--data.source", "y", "--k", "many"], "--k: invalid int value"),
    (["image", "linear", "--encoder", "x"], "--data.source"),
    (["image", "linear", "--checkpoint", "x"], "did you mean encoder?"),
    (["audio", "probe", "--data-source", "x"], "did you mean data.source?"),
    (["text", "sts", "--encoder", "x", "--dataset", "y"], "did you mean data.source?"),
    (["text", "probe", "--senteval", "--encoder", "x", "--fold", "3"], "did you mean folds?"),
    (["text", "convert", "--encoder", "x", "--output", "y"], "did you mean out?"),
    (["text", "convert", "--encoder", "runs", "--out", "y"], "it holds the runs mine/a"),
    (["image", "convert", "runs/mine", "y", "--to", "hub"], "it holds the runs a"),
    (["image", "convert", "runs/mine/a", "y", "--to", "hub"], "has no encoder yet"),
    (["image", "convert", "x", "y", "--to", "onnx"], "invalid choice: 'onnx'"),
    (["image", "linear", "--encoder", "runs/mine", "--data.source", "sklearn:digits"], "runs/mine/latest"),
    (["image", "classify", "--encoder", "runs/mine", "--views", "encoders.image.views.DigitViews",
      "--data.source", "sklearn:digits"], "it holds the runs a"),
    (["image", "pretrain", "--config", "image/digits", "--run_dir", "runs/mine"], "it holds the runs a"),
    (["image", "classify", "--encoder", "x", "--lr", "1"], "did you mean model.head_lr?"),
    (["image", "detect", "--lr", "1"], "did you mean model.lr?"),
    (["seeds", "runs/mine", "runs"], "runs/mine is no run directory; it holds the runs a"),
    (["image", "ablations", "--bas", "x"], "did you mean base?"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "words"), PLAIN, ids=[" ".join(argv) for argv, _ in PLAIN])
def test_the_other_commands(argv, words, folder, capsys):
    (folder / "runs" / "mine" / "a").mkdir(parents=True)
    (folder / "runs" / "mine" / "a" / "config.yaml").write_text("seed: 1\n")
    (folder / "runs" / "mine" / "latest").symlink_to("a")
    assert status_of(main, argv) == 2
    assert words in line_of(capsys)


@pytest.mark.parametrize("place", [0, 2, -1])
def test_a_traceback_is_shown_on_request(place, folder, capsys, monkeypatch):
    argv = [*DIGITS, "--views", "my_lab.CannotMeasure", "--run_dir", "run"]
    asked = [*argv, "--traceback"] if place == -1 else [*argv[:place], "--traceback", *argv[place:]]
    assert image_pretrain.main(asked) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("error: KeyError: 'mean'; --traceback shows where\n")
    assert image_pretrain.main(argv) == 1
    line_of(capsys)
    monkeypatch.setenv("BT_MULTIMODAL_TRACEBACK", "1")
    assert image_pretrain.main(argv) == 1
    assert "Traceback" in capsys.readouterr().err


def test_configs_are_read_whatever_the_locale(folder, capsys, monkeypatch):
    """An encoding other than UTF-8, as under LC_ALL=C."""
    import builtins

    before = builtins.open

    def in_ascii(file, mode="r", *arguments, **options):
        if "b" not in mode and not arguments and options.get("encoding") is None:
            options["encoding"] = "ascii"
        return before(file, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", in_ascii)
    for name, text in (
        ("mine.yaml", "# Küche\ndata: {source: Küche}\n"),
        ("bom.yaml", "\ufeffdata: {source: Küche}\n"),
    ):
        Path(name).write_text(text, encoding="utf-8")
        assert image_pretrain.main([*DIGITS, "--config", name, "--run_dir", "run"]) == 2
        assert "Küche" in line_of(capsys)
