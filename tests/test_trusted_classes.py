"""What an encoder file may name, and that hostile ones run nothing."""

import json
import os
import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bt_multimodal.encoder_file import export_encoder, load_encoder
from bt_multimodal.trusted_classes import build

VIEWS = {"class_path": "encoders.image.views.DigitViews", "init_args": {"noise": 0.5}}
ENCODER = {"class_path": "encoders.image.encoders.ConvNet", "init_args": {"widths": [4], "in_channels": 1}}
MY_LAB = """
import enum, os, sys
from os import system
from subprocess import Popen
import torch
from torch import nn
from bt_multimodal.augmentation_set import AugmentationSet

class Kind(enum.Enum):
    WIDE = "w"

class MyEncoder(nn.Module):
    features_dim = 3
    def __init__(self, width=3, kind=Kind.WIDE, dtype=torch.float32, act=nn.ReLU, inner=None):
        super().__init__()
        self.kept = (width, kind, dtype, act, inner)
        self.linear, self.inner = nn.Linear(2, width), inner

class Fails(nn.Module):
    def __init__(self):
        raise {}["missing"]

def make(width: int = 2) -> MyEncoder:
    return MyEncoder(width)

class MyViews:
    pass

class Plain:
    pass
"""


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "my_lab.py").write_text(MY_LAB)
    monkeypatch.syspath_prepend(tmp_path / "lab")
    yield "my_lab"
    sys.modules.pop("my_lab", None)


class Boom:
    """Unpickled, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def hostile(mark, pickled):
    """Descriptions of an encoder that would run something, each in another way."""
    touch = f"touch {mark}"
    yield "os.system", {"class_path": "os.system", "init_args": {"command": touch}}
    yield "Popen", {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(mark)]}}
    yield "torch.load", {"class_path": "torch.load", "init_args": {"f": str(pickled), "weights_only": False}}
    yield "through a module", {"class_path": "torch.nn.modules.os.system", "init_args": {"command": touch}}
    yield "builtins", {"class_path": "builtins.eval", "init_args": {"source": f"open({str(mark)!r}, 'w')"}}
    yield "pydoc", {"class_path": "pydoc.pipepager", "init_args": {"text": "", "cmd": touch}}
    yield "torch.hub", {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "x/y", "model": "m"}}
    yield "package", {"class_path": "torch.package.PackageImporter", "init_args": {"file_or_buffer": "x"}}
    yield "script", {"class_path": "torch.jit.load", "init_args": {"f": str(pickled)}}
    yield "cpp", {"class_path": "torch.utils.cpp_extension.load", "init_args": {"name": "x", "sources": []}}
    yield (
        "shell",
        {"class_path": "transformers.pipeline", "init_args": {"model": "x", "trust_remote_code": True}},
    )
    yield (
        "nested",
        {
            "class_path": "torch.nn.Sequential",
            "init_args": {"args": {"class_path": "os.system", "init_args": {"command": touch}}},
        },
    )
    yield (
        "deep",
        {
            "class_path": "bt_multimodal.twins.Headless",
            "init_args": {
                "module": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(mark)]}},
                "features_dim": 3,
            },
        },
    )
    yield "in a module of ours", {"class_path": "encoders.image.exchange.pickle.loads", "init_args": {}}
    yield "imported by ours", {"class_path": "bt_multimodal.twins.torch", "init_args": {}}
    yield "a function of ours", {"class_path": "encoders.command_line.main", "init_args": {"argv": []}}
    yield (
        "a loader of ours",
        {"class_path": "bt_multimodal.encoder_file.load_encoder", "init_args": {"path": "x"}},
    )
    yield (
        "no network",
        {"class_path": "bt_multimodal.distributed.rank_watch.RankWatch", "init_args": {"timeout": 9}},
    )
    yield "private", {"class_path": "torch.nn.Module.__init_subclass__", "init_args": {}}
    yield (
        "remote code",
        {
            "class_path": "encoders.text.pretrained.PretrainedText",
            "init_args": {"name": json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "x--y"}})},
        },
    )
    yield (
        "hub kernels",
        {
            "class_path": "encoders.text.pretrained.PretrainedText",
            "init_args": {"name": {"model_type": "bert", "attn_implementation": "someone/kernels"}},
        },
    )
    yield "the hub", {"class_path": "encoders.text.pretrained.PretrainedText", "init_args": {"name": "x/y"}}
    yield "a folder", {"class_path": "encoders.audio.pretrained.PretrainedAST", "init_args": {"name": "/tmp"}}
    yield "pretrained", {"class_path": "timm.models.ResNet", "init_args": {"pretrained": True}}
    yield "relative", {"class_path": "..os.system", "init_args": {}}
    yield (
        "a named class",
        {
            "class_path": "torch.nn.TransformerEncoderLayer",
            "init_args": {"d_model": 4, "nhead": 2, "activation": {"named": "os.system"}},
        },
    )
    yield (
        "a named member",
        {
            "class_path": "torch.nn.Linear",
            "init_args": {"in_features": {"named": "os.path", "member": "join"}, "out_features": 3},
        },
    )


NAMES = [name for name, _ in hostile("mark", "pickled")]


def write(path, encoder, views=VIEWS, **metadata):
    text = {"format": "bt_multimodal.encoder/1", "encoder": json.dumps(encoder), "views": json.dumps(views)}
    save_file({"a": torch.zeros(2)}, path, {**text, **metadata})


@pytest.mark.parametrize("role", ["encoder", "views"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_are_refused_and_run_nothing(tmp_path, name, role, monkeypatch):
    mark, pickled = tmp_path / "mark", tmp_path / "pickled"
    pickled.write_bytes(pickle.dumps(Boom(mark)))
    spec = dict(hostile(mark, pickled))[name]
    file = tmp_path / "encoder.safetensors"
    write(file, *((spec,) if role == "encoder" else (ENCODER, spec)))
    called = []
    for place in ("os.system", "subprocess.Popen.__init__", "socket.socket.connect", "torch.load"):
        monkeypatch.setattr(place, lambda *_, place=place, **__: called.append(place))
    before = set(sys.modules)
    for weights in (True, False):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            load_encoder(file, weights)
        assert "\n" not in str(caught.value)
    assert not called
    assert not mark.exists()
    new = {module.partition(".")[0] for module in set(sys.modules) - before}
    assert not new & {"pydoc", "subprocess", "my_lab"}


def test_nothing_of_another_package_is_imported(tmp_path, my_lab):
    file = tmp_path / "encoder.safetensors"
    write(file, {"class_path": "my_lab.MyEncoder"})
    with pytest.raises(ValueError, match=r"'my_lab.MyEncoder'.*trust=\('my_lab',\), or --trust my_lab in"):
        load_encoder(file)
    assert my_lab not in sys.modules


@pytest.mark.parametrize("trust", ["my_lab", ("my_lab",), ["other", "my_lab"]])
def test_packages_that_the_user_allows(tmp_path, my_lab, trust):
    file = tmp_path / "encoder.safetensors"
    encoder = build({"class_path": "my_lab.MyEncoder"}, trust)
    export_encoder(file, encoder, {"class_path": "my_lab.MyEncoder"}, VIEWS)
    assert load_encoder(file, trust=trust).encoder.kept == encoder.kept
    assert build({"class_path": "my_lab.make", "init_args": {"width": 5}}, trust).kept[0] == 5
    assert build({"class_path": "my_lab.MyViews"}, trust, views=True) is not None


@pytest.mark.parametrize(
    "path", ["my_lab.system", "my_lab.Popen", "my_lab.os.system", "my_lab.Plain", "my_lab.nn"]
)
def test_an_allowed_package_hands_on_no_others(my_lab, path):
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        build({"class_path": path, "init_args": {"args": ["true"]}}, my_lab)


def test_arguments_that_are_networks_classes_members_and_dtypes(tmp_path, my_lab):
    import my_lab as lab

    inner = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
    spec = {
        "class_path": "my_lab.MyEncoder",
        "init_args": {
            "width": 4,
            "kind": lab.Kind.WIDE,
            "dtype": torch.float16,
            "act": nn.GELU,
            "inner": inner,
        },
    }
    encoder = lab.MyEncoder(4, lab.Kind.WIDE, torch.float16, nn.GELU, nn.Linear(2, 3))
    export_encoder(tmp_path / "encoder.safetensors", encoder, spec, VIEWS)
    loaded = load_encoder(tmp_path, trust="my_lab").encoder
    assert loaded.kept[:4] == encoder.kept[:4]
    torch.testing.assert_close(loaded.inner.weight, encoder.inner.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"class_path": "my_lab.Fails"}, "cannot build my_lab.Fails: KeyError: 'missing'"),
        ({"class_path": "my_lab.MyEncoder", "init_args": {"widht": 3}}, "cannot build .* 'widht'"),
        ({"class_path": "my_lab.MyEncoder", "init_args": [1]}, "are not names and values"),
        ({"class_path": 3}, "needs a class_path"),
        ({}, "needs a class_path"),
        ([], "needs a class_path"),
        ({"class_path": "MyEncoder"}, "not the path of a class"),
        ({"class_path": "my_lab.No"}, "cannot build my_lab.No"),
        ({"class_path": "my_lab.a b"}, "not the path of a class"),
    ],
)  # fmt: skip
def test_wrong_descriptions(my_lab, spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(spec, my_lab)
    assert "\n" not in str(caught.value)


def test_arguments_nested_without_end():
    spec = {"class_path": "torch.nn.Identity", "init_args": {}}
    for _ in range(60):
        spec = {"class_path": "torch.nn.Identity", "init_args": {"args": [spec]}}
    with pytest.raises(ValueError, match="nested more than 20 deep"):
        build(spec)


@pytest.mark.parametrize("trust", ["my lab", ("a/b",), (3,)])
def test_wrong_names_of_packages(trust):
    with pytest.raises(ValueError, match="trust takes names of packages"):
        build(ENCODER, trust)


def test_functions_that_return_augmentation_sets():
    pytest.importorskip("tokenizers")
    made = build(
        {"class_path": "encoders.text.presets.simcse", "init_args": {"tokenizer": "bytes"}}, views=True
    )
    assert made.length == 32
    with pytest.raises(ValueError, match="would load 'someone/model' from a disk or the hub"):
        build(
            {"class_path": "encoders.text.presets.simcse", "init_args": {"tokenizer": "someone/model"}},
            views=True,
        )


def test_words_of_a_vocabulary_are_no_arguments():
    pytest.importorskip("tokenizers")
    from encoders.text.tokens import byte_tokens

    tokens = json.loads(byte_tokens().to_json())
    tokens["model"]["vocab"] |= {"weights": 261, "pretrained": 262}
    spec = {"class_path": "encoders.text.views.TextViews", "init_args": {"tokenizer": json.dumps(tokens)}}
    assert build(spec, views=True).tokens.size == 263
