"""Encoders to and from the reference code's files, torchvision and the hub: names, shapes and values."""

import json
import pickle

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from bt_multimodal import BarlowTwins, Projector
from bt_multimodal.encoder_file import export_encoder, load_encoder
from encoders.image.encoders import ConvNet, TorchvisionEncoder
from encoders.image.exchange import convert, read_reference
from encoders.image.views import ReferenceViews
from tasks import image_convert

TORCHVISION = "encoders.image.encoders.TorchvisionEncoder"
VIEWS = {"class_path": "encoders.image.views.ReferenceViews", "init_args": {"size": 64}}


@pytest.fixture(scope="module")
def keys(request):
    """``keys("checkpoint")``: names and shapes of the reference code's file."""
    folder = request.path.parents[1] / "reference"
    return lambda name: json.loads((folder / f"official_{name}_keys.json").read_text(encoding="utf-8"))


def hollow(shapes):
    """Tensors of these shapes that take no room on a disk."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def shapes(state):
    return {name: list(tensor.shape) for name, tensor in state.items()}


def assert_close(found, expected):
    """Of 18 or 50 layers of sums of up to 4,608 products, which another layout may add in another order."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run directory of a ResNet-18 with statistics of its own."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18")
    encoder(torch.randn(8, 3, 64, 64))
    spec = {"class_path": TORCHVISION, "init_args": {"name": "resnet18"}}
    export_encoder(folder / "encoder.safetensors", encoder, spec, VIEWS)
    (folder / "table.txt").write_text("trained encoder  63.3\n")
    return folder


def test_the_reference_checkpoint_fits_our_twins(tmp_path, keys):
    names = keys("checkpoint")
    torch.save(
        {"epoch": 1000, "model": hollow(names), "optimizer": {"state": {}}}, tmp_path / "checkpoint.pth"
    )
    weights = read_reference(tmp_path / "checkpoint.pth")
    with torch.device("meta"):
        twins = BarlowTwins(TorchvisionEncoder("resnet50"), Projector([2048, 8192, 8192, 8192]))
    assert shapes(weights.encoder) == shapes(twins.encoder.module.state_dict())
    assert shapes(weights.projector) == shapes(twins.projector.state_dict())
    theirs = {f"module.backbone.{n}": s for n, s in shapes(twins.encoder.module.state_dict()).items()}
    theirs |= {
        n.replace("layers.", "module.projector."): s for n, s in shapes(twins.projector.state_dict()).items()
    }
    left = {name: shape for name, shape in names.items() if not name.startswith("module.bn.")}
    assert theirs == left
    count = sum(p.numel() for p in twins.parameters())
    assert count == 174_535_744
    assert sum(p.numel() for p in twins.parameters() if p.ndim == 1) == 85_888


def test_the_released_weights_go_both_ways(tmp_path, keys):
    torch.manual_seed(0)
    released = resnet50()
    released.fc = nn.Identity()
    assert shapes(released.state_dict()) == keys("resnet50")
    torch.save(released.state_dict(), tmp_path / "resnet50.pth")
    ours = tmp_path / "made" / "encoder.safetensors"
    convert(tmp_path / "resnet50.pth", ours, "encoder")
    encoder, views = load_encoder(ours)
    assert isinstance(views, ReferenceViews)
    picture = torch.randn(1, 3, 64, 64)
    assert_close(encoder(picture), released.eval()(picture))
    convert(ours, tmp_path / "back.pth", "torchvision")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(released.state_dict())
    assert all(torch.equal(back[name], value) for name, value in released.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
def test_torchvision_misses_only_the_head(tmp_path, small, name):
    from safetensors.torch import load_file

    convert(small, tmp_path / name, "torchvision")
    read = torch.load if name.endswith(".pth") else load_file
    plain = resnet18()
    missing = plain.load_state_dict(read(tmp_path / name), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    plain.fc = nn.Identity()
    picture = torch.randn(2, 3, 64, 64)
    assert_close(plain.eval()(picture), load_encoder(small).encoder(picture))


def test_the_hub_folder_loads_in_timm_and_transformers(tmp_path, small):
    timm = pytest.importorskip("timm")
    from transformers import AutoModel

    folder = tmp_path / "hub"
    assert image_convert.main([str(small), str(folder), "--to", "hub"]) == 0
    picture = torch.randn(2, 3, 64, 64)
    expected = load_encoder(small).encoder(picture)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert_close(theirs(picture), expected)
    assert tuple(theirs.pretrained_cfg["input_size"]) == (3, 64, 64)
    wrapped = AutoModel.from_pretrained(folder).eval()
    assert_close(wrapped(picture).pooler_output.flatten(1), expected)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trained encoder  63.3" in card
    assert "64 pixels" in card


class Harm:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('harm').write_text('done')",))


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "more": Harm()}, tmp_path / "checkpoint.pth")
    assert image_convert.main(["checkpoint.pth", "encoder.safetensors", "--to", "encoder"]) == 2
    error = capsys.readouterr().err
    assert "holds more than tensors" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harm()))  # the harm is real
    assert (tmp_path / "harm").exists()


def test_what_cannot_be_converted(tmp_path, small, capsys):
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "tiny.pth")
    stem = tmp_path / "stem.safetensors"
    spec = {"class_path": TORCHVISION, "init_args": {"name": "resnet18", "small_stem": True}}
    export_encoder(stem, TorchvisionEncoder("resnet18", small_stem=True), spec, VIEWS)
    own = tmp_path / "own.safetensors"
    spec = {"class_path": "encoders.image.encoders.ConvNet", "init_args": {"widths": [8]}}
    export_encoder(own, ConvNet([8]), spec, VIEWS)
    for source, target, form, message in (
        ("nowhere.pth", "x.safetensors", "encoder", "there is no checkpoint at"),
        ("text.pth", "x.safetensors", "encoder", "text.pth"),
        ("list.pth", "x.safetensors", "encoder", "not hold a model of the reference code"),
        ("other.pth", "x.safetensors", "encoder", "no backbone"),
        ("tiny.pth", "x.safetensors", "encoder", "not a ResNet-50's"),
        ("stem.safetensors", "x.pth", "torchvision", "no place in a plain resnet18"),
        ("stem.safetensors", "x", "hub", "no place in a plain resnet18"),
        ("own.safetensors", "x.pth", "torchvision", "holds a ConvNet"),
        (small, "x.safetensors", "encoder", "in this format already"),
        (small, "x.bin", "torchvision", "must end in .pth or .safetensors"),
    ):
        assert image_convert.main([str(tmp_path / source), str(tmp_path / target), "--to", form]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
