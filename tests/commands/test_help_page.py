"""The help page shows every key with a sentence, the classes that can be chosen, and the keys of a class."""

import re
import sys

import pytest

from bt_multimodal.commands import classify, pretrain, sources, svm
from bt_multimodal.commands.help_page import argument_names, page
from bt_multimodal.commands.keys import make_parser
from bt_multimodal.compat import parser_keys
from encoders.image.detection import command as detection

KEYS = {"pretrain": pretrain.KEYS, "classify": classify.KEYS, "svm": svm.KEYS, "detect": detection.KEYS}


@pytest.mark.parametrize("command", KEYS)
def test_its_keys_are_those_of_the_parser(command):
    shown = {*argument_names(KEYS[command])}
    known = {*parser_keys(make_parser(KEYS[command]))} | {"config"}
    # jsonargparse lists a chosen class and a group themselves, and a way to ask for a class's help.
    assert shown <= known
    hidden = {key for key in known - shown if not key.endswith(".help") and "." in key}
    assert all(key.startswith("trainer.") for key in hidden), hidden


@pytest.mark.parametrize("command", KEYS)
def test_every_key_has_a_sentence(command):
    text = page("What it does.", KEYS[command], "image")
    for name in argument_names(KEYS[command]):
        entry = re.search(rf"^  --{re.escape(name)}\b[^\n]*\n?( +[^\s-][^\n]*)?", text, re.MULTILINE)
        assert entry, name
        words = entry[0].replace(f"--{name}", "").split()
        assert len(words) >= 2, entry[0]


def test_the_page_is_one_page():
    text = page("What it does.", pretrain.KEYS, "image")
    assert text.startswith("What it does.\n\nkeys\n")
    assert len(text.splitlines()) < 150
    for name in ("encoders.image.views.ReferenceViews", "encoders.image.encoders.ConvNet", "--data.source"):
        assert f"\n  {name}" in text
    assert "encoders.audio" not in text
    assert "[256]" in text, "the default of data.batch_size"
    assert "[True]" in text[text.index("sync_batchnorm") :].split("--")[0], "ours, not Lightning's"


def test_it_lists_only_what_the_command_takes():
    assert "augmentation sets" not in page("", detection.KEYS, "image")
    assert "encoders (" not in page("", classify.KEYS, "image")
    assert "augmentation sets" in page("", classify.KEYS, "image")


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_it_lists_what_can_be_chosen(modality):
    """The lists are read from source files; here they are held against the imported classes."""
    from importlib import import_module

    from torch import nn

    from bt_multimodal.augmentation_set import AugmentationSet

    for described in sources.augmentation_sets(f"encoders.{modality}"):
        module, _, name = described.class_path.rpartition(".")
        target = getattr(import_module(module), name)
        if isinstance(target, type):
            assert issubclass(target, AugmentationSet)
        assert described.sentence
    found = sources.encoders(f"encoders.{modality}")
    assert found
    for described in found:
        module, _, name = described.class_path.rpartition(".")
        assert issubclass(getattr(import_module(module), name), nn.Module)
        assert described.sentence
        assert all(argument.text for argument in described.arguments), described


def test_all_encoders_and_augmentation_sets_are_listed():
    names = {
        modality: {
            described.class_path.rpartition(".")[2]
            for described in (
                *sources.encoders(f"encoders.{modality}"),
                *sources.augmentation_sets(f"encoders.{modality}"),
            )
        }
        for modality in ("image", "audio", "text")
    }
    assert names["image"] == {
        "TorchvisionEncoder", "TimmEncoder", "ConvNet",
        "ReferenceViews", "SmallImageViews", "DigitViews", "ClassificationViews",
    }  # fmt: skip
    assert names["audio"] == {
        "AudioNTT", "AudioConvNet", "SpectrogramResNet", "SpectrogramViT", "PretrainedWaveform",
        "PretrainedAST",
        "SpectrogramViews", "WaveformViews",
    }  # fmt: skip
    assert names["text"] == {
        "PretrainedText", "TextTransformer", "BagOfNgrams",
        "TextViews", "simcse", "self_contrastive_decorrelation", "tsdae", "cropping",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ConvNet", "encoders.image.encoders.ConvNet"])
def test_the_keys_of_a_class(name):
    text = page("", pretrain.KEYS, "image", name)
    assert text.startswith("encoders.image.encoders.ConvNet\n")
    assert re.search(r"\.in_channels +3 for colour, 1 for greyscale\. \(int \[3\]\)", text)


def test_the_keys_of_a_users_class(tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(
        'raise RuntimeError("imported")\n\n'
        'class Mine:\n    """Mine.\n\n    Args:\n        width, depth: of it,\n'
        '            in layers.\n    """\n\n    def __init__(self, width: int, *, depth=2):\n        pass\n'
    )
    monkeypatch.chdir(tmp_path)
    text = page("", pretrain.KEYS, "image", "my_lab.Mine")
    assert re.search(r"\.width +of it, in layers\. \(int\)", text)
    assert re.search(r"\.depth +of it, in layers\. \(\[2\]\)", text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ConvNot", r"no class 'ConvNot' was found; did you mean ConvNet\?"),
        ("zzzzzz", "no class 'zzzzzz' was found; there are .*ReferenceViews.*, and any class path"),
        ("my_lab.Nothing", "no class 'my_lab.Nothing' was found"),
        ("", "no class '' was found"),
    ],
)
def test_no_such_class(name, message):
    with pytest.raises(ValueError, match=message):
        page("", pretrain.KEYS, "image", name)


def test_arguments_are_read_as_they_are_written():
    described = sources.describe("bt_multimodal.training.pretraining_data.PretrainingData")
    arguments = {argument.name: argument for argument in described.arguments}
    assert arguments["validation"].default == "0.1"
    assert arguments["train_split"].text == arguments["test_split"].text
    assert arguments["source"].default == ""
    options = sources.describe("bt_multimodal.commands.pretrain.ProbeOptions")
    assert {a.name: a.default for a in options.arguments}["per_class"] == "[10]"
    assert sources.describe("sys.path") is None
    assert "bt_multimodal.commands.sources" in sys.modules
