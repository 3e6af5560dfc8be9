"""Classifiers from the command line, on digits: linear, both parts, and the untrained baseline."""

import json

import pytest
import torch

from bt_multimodal.encoder_file import export_encoder
from encoders.image.encoders import ConvNet
from tasks import image_classify

VIEWS = {"class_path": "encoders.image.views.DigitViews", "init_args": {}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    spec = {
        "class_path": "encoders.image.encoders.ConvNet",
        "init_args": {"widths": [16, 32], "in_channels": 1},
    }
    encoder = ConvNet([16, 32], in_channels=1).train()
    for _ in range(40):  # BatchNorm learns the scale, no weight is trained
        encoder(torch.randn(64, 1, 8, 8))
    export_encoder(path, encoder, spec, VIEWS)
    return path


def run(encoder, out, *more):
    argv = ["fit", "--config", "configs/image/imagenet_linear.yaml", "--encoder", str(encoder),
            "--views", "encoders.image.views.DigitViews", "--views.size", "8",
            "--data.source", "sklearn:digits", "--data.num_workers", "0",
            "--data.batch_size", "64", "--trainer.accelerator", "cpu",
            "--trainer.devices", "1", "--trainer.max_epochs", "3", "--run_dir", str(out), *more]  # fmt: skip
    return image_classify.main(argv)


def accuracy(out):
    (name, figures), *_ = json.loads((out / "table.json").read_text(encoding="utf-8"))["rows"].items()
    return name, figures["top-1"][0], figures["top-5"][0]


def test_linear_both_and_untrained(tmp_path, encoder, capsys):
    linear = ("--model.head_lr", "2")
    assert run(encoder, tmp_path / "linear", *linear) == 0
    assert "360 test images, 1437 labels" in capsys.readouterr().out
    name, one, five = accuracy(tmp_path / "linear")
    assert name == "trained encoder"
    assert 20 < one < five <= 100
    both = ("--model.encoder_lr", "1", "--model.head_lr", "2")
    assert run(encoder, tmp_path / "both", *both) == 0
    assert accuracy(tmp_path / "both")[1] > one + 10
    assert run(encoder, tmp_path / "fresh", "--fresh", "true", "--data.per_class", "10") == 0
    assert accuracy(tmp_path / "fresh")[0] == "untrained encoder"
    assert "100 labels" in capsys.readouterr().out
    # A run that is found is continued; one that has ended gives its table again.
    before = (tmp_path / "linear" / "table.json").read_text(encoding="utf-8")
    assert run(encoder, tmp_path / "linear", *linear) == 0
    assert (tmp_path / "linear" / "table.json").read_text(encoding="utf-8") == before


def test_wrong_input_is_one_line(tmp_path, encoder, capsys):
    for more, message in (
        (("--encoder", str(tmp_path / "nowhere")), "there is no encoder"),
        (("--data.batch_size", "5000"), "batch_size 5000"),
        (("--model.head_rl", "1"), "did you mean model.head_lr"),
        (("--model.gamma", "-1"), "gamma >= 0"),
        (("--model.encoder_lr", "-1"), "encoder_lr >= 0"),
        (("--views.size", "8.5"), "views.size"),
        (("--trainer.max_epochs", "-1"), "give trainer.max_epochs"),
    ):
        assert run(encoder, tmp_path / "run", *more) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_views_that_the_encoder_does_not_take(tmp_path, encoder, capsys):
    assert run(encoder, tmp_path / "run", "--views", "encoders.image.views.SmallImageViews") == 2
    assert "ConvNet does not take these views" in capsys.readouterr().err
