import subprocess
import sys

import pytest
import torch
import torchvision

from bt_multimodal.twins import check_representation
from encoders.image.encoders import ConvNet, TimmEncoder, TorchvisionEncoder

# Name, width of the representation, side of a picture that is small but enough.
NETWORKS = [
    ("resnet18", 512, 32),
    ("convnext_tiny", 768, 32),
    ("mobilenet_v3_small", 1024, 32),
    ("densenet121", 1024, 32),
    ("efficientnet_b0", 1280, 32),
    ("regnet_y_400mf", 440, 32),
    ("shufflenet_v2_x0_5", 1024, 32),
    ("swin_t", 768, 32),
    ("googlenet", 1024, 64),
]
# Hundreds of megabytes of weights: built without any, shapes only.
HEAVY = [("resnet50", 2048), ("vgg11", 4096), ("alexnet", 4096), ("vit_b_16", 768), ("maxvit_t", 512)]


@pytest.mark.parametrize(("name", "features_dim", "side"), NETWORKS)
def test_torchvision_by_name(name, features_dim, side):
    encoder = TorchvisionEncoder(name)
    assert encoder.features_dim == features_dim
    check_representation(encoder, encoder(torch.randn(2, 3, side, side)))


@pytest.mark.parametrize(("name", "features_dim"), HEAVY)
def test_heavy_torchvision_by_name(name, features_dim):
    with torch.device("meta"):
        encoder = TorchvisionEncoder(name).eval()
        assert encoder.features_dim == features_dim
        check_representation(encoder, encoder(torch.zeros(2, 3, 224, 224)))


def test_the_state_dict_is_torchvisions_without_the_head():
    theirs = torchvision.models.resnet18()
    encoder = TorchvisionEncoder("resnet18").eval()
    keys = {name for name in theirs.state_dict() if not name.startswith("fc.")}
    assert {name.removeprefix("module.") for name in encoder.state_dict()} == keys
    encoder.module.load_state_dict(theirs.state_dict(), strict=False)
    theirs.eval().fc = torch.nn.Identity()
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(encoder(x), theirs(x))


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_residual(zero):
    encoder = TorchvisionEncoder("resnet18", zero_init_residual=zero)
    assert bool((encoder.get_parameter("module.layer1.0.bn2.weight") == 0).all()) is zero


def test_small_stem_keeps_the_resolution():
    encoder = TorchvisionEncoder("resnet18", small_stem=True)
    sizes = []
    encoder.get_submodule("module.layer1").register_forward_hook(lambda m, i, o: sizes.append(o.shape[2:]))
    check_representation(encoder, encoder(torch.randn(2, 3, 32, 32)))
    assert sizes == [(32, 32)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5O"}, r"no classifier 'resnet5O'; the nearest name is 'resnet50'"),
        ({"name": "fasterrcnn_resnet50_fpn"}, "torchvision has no classifier"),
        ({"name": "squeezenet1_0"}, "squeezenet1_0 does not end in a Linear layer"),
        ({"name": "vgg11", "small_stem": True}, "small_stem is for ResNets, not for vgg11"),
    ],
)
def test_wrong_torchvision_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionEncoder(**arguments)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm_by_name(name):
    pytest.importorskip("timm")
    encoder = TimmEncoder(name).eval()
    check_representation(encoder, encoder(torch.randn(2, 3, 224, 224)))


def test_wrong_timm_name():
    pytest.importorskip("timm")
    with pytest.raises(
        ValueError, match=r"timm has no classifier 'resnext5O_32x4d'; the nearest name is 'resnext50_32x4d'"
    ):
        TimmEncoder("resnext5O_32x4d")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        TimmEncoder("resnet10t")


def test_timm_is_not_imported_unasked():
    code = "import sys, encoders.image.encoders; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "shape", "features_dim"),
    [
        ({}, (2, 3, 32, 32), 256),
        ({"widths": [16, 32, 64], "in_channels": 1}, (2, 1, 8, 8), 64),
        ({"widths": [8], "grid": 2}, (2, 3, 8, 8), 32),
        ({"widths": [8, 16], "depth": 2, "grid": 3}, (2, 3, 24, 24), 144),
    ],
)
def test_conv_net(arguments, shape, features_dim):
    encoder = ConvNet(**arguments)
    assert encoder.features_dim == features_dim
    output = encoder(torch.randn(shape))
    check_representation(encoder, output)
    output.sum().backward()
    depth, stages = arguments.get("depth", 0), len(arguments.get("widths", range(4))) - 1
    assert sum(p.ndim == 4 for p in encoder.parameters()) == 1 + stages * (1 + depth)


def test_the_grid_keeps_where_it_was():
    """The four quarters of a map are its four parts, row by row, and their mean is global pooling."""
    torch.manual_seed(0)
    parts = ConvNet([8, 16], grid=2).eval()
    whole = ConvNet([8, 16]).eval()
    whole.load_state_dict(parts.state_dict())
    view = torch.randn(2, 3, 16, 16)
    quarters = parts(view).unflatten(1, (16, 4))
    torch.testing.assert_close(quarters.mean(2), whole(view))
    lower_right = parts.layers(view)[:, :, 4:, 4:].mean((2, 3))
    torch.testing.assert_close(quarters[:, :, 3], lower_right)


def test_conv_net_keeps_its_layout_when_loaded():
    encoder = ConvNet()
    encoder.load_state_dict({k: v.contiguous() for k, v in ConvNet().state_dict().items()})
    weight = encoder.get_parameter("layers.3.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"widths": []}, "widths is empty"), ({"grid": 0}, "not 0")]
)
def test_wrong_conv_net(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)


@pytest.mark.parametrize(("name", "width", "dim"), [("resnet18", 16, 128), ("resnet50", 8, 256)])
def test_narrow_resnets(name, width, dim):
    """Every layer in proportion, and each weight as spread as torchvision's of that fan-out."""
    torch.manual_seed(0)
    encoder, published = TorchvisionEncoder(name, width=width), TorchvisionEncoder(name)
    assert encoder.features_dim == dim
    check_representation(encoder, encoder(torch.randn(2, 3, 64, 64)))
    pairs = zip(encoder.module.named_parameters(), published.module.named_parameters(), strict=True)
    for (key, ours), (theirs_key, theirs) in pairs:
        assert key == theirs_key
        assert ours.shape[0] * 64 == theirs.shape[0] * width
        if ours.ndim == 4:
            fan_out = ours.shape[0] * ours.shape[2] * ours.shape[3]
            assert ours.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)
        else:
            assert ours.unique().tolist() == theirs.unique().tolist()  # zero where a branch ends
    assert TorchvisionEncoder(name, small_stem=True, width=width).module.conv1.out_channels == width


@pytest.mark.parametrize(("name", "width"), [("vgg11", 16), ("resnet18", 0)])
def test_wrong_width(name, width):
    with pytest.raises(ValueError, match=f"not {width} for {name}"):
        TorchvisionEncoder(name, width=width)
