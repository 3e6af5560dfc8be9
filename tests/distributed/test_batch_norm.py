"""BatchNorm over all ranks: layers of torch, timm and torchvision, and networks of every family.

Two ranks with shards of different size, mean and spread against one process with all samples, in training
mode: the output rows, the running statistics, the parameters' gradients.
"""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bt_multimodal.distributed.batch_norm import synchronise_batch_norm

SIZES = (2, 3)  # samples on each rank
# The smallest network of each module of timm that has BatchNorm, and the width of a picture it takes.
TIMM = {
    "lambda_resnet26t": 64, "test_byobnet": 64, "convmixer_768_32": 64, "cpubone_nano": 64,
    "cs3darknet_focus_s": 64, "cspnext_tiny": 64, "densenet121": 64, "dla46_c": 64, "dpn48b": 64,
    "efficientformer_l1": 224, "efficientformerv2_s0": 224, "test_efficientnet": 64, "efficientvim_m1": 64,
    "efficientvit_b0": 64, "efficientvit_m0": 224, "fasternet_t0": 64, "fastvit_t8": 64, "ghostnet_050": 64,
    "hardcorenas_b": 64, "hgnetv2_b0": 64, "hrnet_w18_small": 64, "iformer_t": 64,
    "inception_next_atto": 64, "inception_resnet_v2": 96, "inception_v3": 96, "inception_v4": 96,
    "lcnetv2_small": 64, "levit_128": 224, "lowformer_b0": 64, "test_coatnet": 160,
    "mobilenetv3_small_050": 64, "mobilevit_xxs": 64, "nasnetalarge": 64, "nextvit_small": 64,
    "pnasnet5large": 64, "regnetx_002": 64, "repghostnet_050": 64, "repvit_m1": 64, "res2next50": 64,
    "resnest14d": 64, "test_resnet": 64, "resnetv2_18": 64, "rexnet_100": 64, "selecsls42": 64,
    "legacy_seresnet18": 64, "shvit_s1": 64, "skresnet18": 64, "starnet_s050": 64, "swiftformer_xs": 224,
    "tiny_vit_5m_224": 64, "tresnet_m": 64, "vgg11_bn": 64, "visformer_tiny": 224, "volo_d1_224": 224,
    "ese_vovnet19b_dw": 64, "legacy_xception": 64, "xception41p": 64, "xcit_nano_12_p16_224": 224,
    "vit_base_mci_224": 224,
}  # fmt: skip
TORCHVISION = {
    "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "googlenet": 64, "inception_v3": 299,
    "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "regnet_x_400mf": 64,
    "regnet_y_400mf": 64, "resnet18": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64, "vgg11_bn": 32,
    "wide_resnet50_2": 64,
}  # fmt: skip


class Inherits(nn.BatchNorm2d):
    """Only another default."""

    def __init__(self, width):
        super().__init__(width, eps=0.1)


class Overrides(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


class Statistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_var", torch.ones(3))


def acting(**options):
    norm_act = pytest.importorskip("timm.layers.norm_act")
    return norm_act.BatchNormAct2d(4, **options)


def frozen():
    layer = nn.BatchNorm2d(4)
    layer.train = lambda mode=True: layer  # type: ignore[method-assign]
    layer.running_var.fill_(3.0)
    return layer.requires_grad_(False).eval()


def no_longer_tracking():
    layer = nn.BatchNorm2d(4)
    layer.track_running_stats = False
    return layer


def timm_sync():
    norm_act = pytest.importorskip("timm.layers.norm_act")
    return norm_act.convert_sync_batchnorm(acting(act_layer=nn.GELU))


def parametrized():
    return nn.utils.parametrizations.weight_norm(nn.BatchNorm2d(4), dim=None)


LAYERS = {
    "plain": lambda: nn.BatchNorm2d(4),
    "not affine": lambda: nn.BatchNorm2d(4, affine=False),
    "no bias": lambda: setattr(layer := nn.BatchNorm2d(4), "bias", None) or layer,
    "no statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "no longer tracking": no_longer_tracking,
    "cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "no count": lambda: setattr(layer := nn.BatchNorm2d(4), "num_batches_tracked", None) or layer,
    "momentum 0": lambda: nn.BatchNorm2d(4, momentum=0.0),
    "inherits": lambda: Inherits(4),
    "parametrized": parametrized,
    "frozen": frozen,
    "sync": lambda: nn.SyncBatchNorm(4),
    "timm act": lambda: acting(),
    "timm no act": lambda: acting(apply_act=False),
    "timm silu, drop": lambda: acting(act_layer="silu", drop_layer=Half),
    "timm sync": timm_sync,
    "timm gelu": lambda: acting(act_layer="gelu"),
    "timm frozen": lambda: pytest.importorskip("timm.layers.norm_act").FrozenBatchNormAct2d(4),
}
ALONE = {"sync": "plain", "timm sync": "timm gelu"}  # the same layers for one process on a CPU


class Half(nn.Module):
    """A dropout that draws nothing."""

    def forward(self, x):
        return x / 2


def layered(name):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), LAYERS[name](), nn.Conv2d(4, 4, 3), nn.Flatten(2), nn.BatchNorm1d(4)
    )
    return net.double().train()


def pictures(width):
    g = torch.Generator().manual_seed(0)
    return [
        (1.0 - 2 * rank) + (0.3 + rank) * torch.randn(n, 3, width, width, generator=g, dtype=torch.float64)
        for rank, n in enumerate(SIZES)
    ]


def of_library(library, name, width):
    """With random weights, no weight at zero, and nothing that draws."""
    torch.manual_seed(0)
    if library == "timm":
        import timm

        net = timm.create_model(name, num_classes=5)
    else:
        import torchvision

        options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        net = torchvision.models.get_model(name, weights=None, num_classes=5, **options)
    if name == "vgg11_bn":  # its other layers hold 100 million weights and no BatchNorm
        net = net.features
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
        for key in ("p", "drop_prob", "drop_rate", "dropout", "drop"):
            if isinstance(getattr(layer, key, None), float):
                setattr(layer, key, 0.0)
    return net.double().train()


def measure(net, x):
    """Output, running statistics, and the gradients of the sum of squares of the output."""
    large = sum(p.numel() for p in net.parameters()) > 3e7  # whose gradients take gigabytes
    with torch.set_grad_enabled(not large):
        found = net(x)
    found = found if isinstance(found, torch.Tensor) else found[0]
    if not large:
        found.square().sum().backward()
    buffers = {key: value.clone() for key, value in net.named_buffers() if "running" in key or "num" in key}
    grads = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
    return {"output": found.detach(), "buffers": buffers, "grads": grads}


def deviation(found, expected):
    return (
        ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
        if expected.numel()
        else 0.0
    )


def compared(net, whole, width):
    """The largest deviations on this rank of ``net`` from ``whole`` in one process that holds all samples."""
    shards, rank = pictures(width), dist.get_rank()
    names = list(net.state_dict())
    synchronise_batch_norm(net, "cpu")
    assert list(net.state_dict()) == names
    found = measure(net, shards[rank])
    for grad in found["grads"].values():
        dist.all_reduce(grad)
    expected = measure(whole, torch.cat(shards))
    at = sum(SIZES[:rank])
    assert found["buffers"].keys() == expected["buffers"].keys()
    assert found["grads"].keys() == expected["grads"].keys()
    largest = max((g.abs().max() for g in expected["grads"].values()), default=torch.tensor(0.0))
    return {
        "output": deviation(found["output"], expected["output"][at : at + SIZES[rank]]),
        "statistics": max(
            (deviation(found["buffers"][key], value) for key, value in expected["buffers"].items()),
            default=0.0,
        ),
        "gradients": max(
            (((found["grads"][k] - g).abs().max() / largest).item() for k, g in expected["grads"].items()),
            default=0.0,
        ),
    }


def rank_main(rank, folder, cases):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SIZES))
    results = {}
    for library, name, width in cases:
        if library == "layers":
            net, whole = layered(name), layered(ALONE.get(name, name))
        else:
            net = of_library(library, name, width)
            whole = copy.deepcopy(net)
        results[library, name] = compared(net, whole, width)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def over_ranks(folder, cases):
    torch.multiprocessing.spawn(rank_main, (folder, cases), nprocs=len(SIZES))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SIZES))]


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Every rank's deviations, by kind of layer."""
    pytest.importorskip("timm")
    return over_ranks(tmp_path_factory.mktemp("ranks"), [("layers", name, 8) for name in LAYERS])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_one_process(layers, name):
    for found in layers:
        assert max(found["layers", name].values()) < 1e-12


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    pytest.importorskip("timm")
    cases = [("timm", name, width) for name, width in TIMM.items()]
    cases += [("torchvision", name, width) for name, width in TORCHVISION.items()]
    return over_ranks(tmp_path_factory.mktemp("ranks"), cases)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name"), [("timm", name) for name in TIMM] + [("torchvision", name) for name in TORCHVISION]
)
def test_networks_equal_one_process(networks, library, name):
    for found in networks:
        # Rounding of float64, which a deep network with random weights enlarges.
        assert max(found[library, name].values()) < 1e-8


@pytest.mark.slow
def test_every_family_of_timm_is_there():
    timm = pytest.importorskip("timm")
    families = {timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in TIMM}
    for family in set(timm.list_modules()) - families:
        for name in timm.list_models(module=family)[:2]:
            with torch.device("meta"):
                layers = timm.create_model(name).modules()
            assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers), name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_stays_the_same_object(name, device):
    """Also for GPUs, where this machine may have none: there the forward pass of nn.SyncBatchNorm runs."""
    net = layered(name)
    before = [(key, layer, layer.__dict__.copy(), type(layer)) for key, layer in net.named_modules()]
    assert synchronise_batch_norm(net, device) is net
    assert synchronise_batch_norm(net, device) is net  # once more changes nothing
    for (key, layer, attributes, kind), (name_now, now) in zip(before, net.named_modules(), strict=True):
        assert (name_now, now, now.__dict__) == (key, layer, attributes)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            sync = issubclass(kind, nn.SyncBatchNorm)
            assert isinstance(now, kind) is not (sync and device == "cpu")
            assert isinstance(now, nn.SyncBatchNorm) is (sync and device != "cpu")
        else:
            assert type(now) is kind
    again = pickle.loads(pickle.dumps(net[-1]))
    assert type(copy.deepcopy(net)[-1]) is type(again) is type(net[-1])
    torch.testing.assert_close(again.state_dict(), net[-1].state_dict())


def test_on_gpus_torch_computes_and_the_layer_acts(monkeypatch):
    layer = synchronise_batch_norm(acting(act_layer=nn.GELU, drop_layer=Half), "cuda")
    monkeypatch.setattr("bt_multimodal.distributed.batch_norm.world_size", lambda: 2)
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: x + 1)
    x = torch.empty(2, 4, 3, 3, device="meta")  # a device other than the CPU
    monkeypatch.setattr(Half, "forward", lambda self, x: torch.ones(3))
    assert torch.equal(layer(x), nn.functional.gelu(torch.ones(3)))
    layer.eval()
    monkeypatch.setattr(Half, "forward", lambda self, x: x / 2)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(
        layer(x), nn.functional.gelu(x / (1 + layer.eps) ** 0.5 / 2), msg="running statistics in evaluation"
    )


def split():
    return pytest.importorskip("timm.layers").SplitBatchNorm2d(4)


def replaced():
    layer = nn.BatchNorm2d(4)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    return layer


def evo():
    return pytest.importorskip("timm.layers").EvoNorm2dB0(4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Overrides(4), r"test_batch_norm.Overrides at '0.inner'.*overrides.*sync_batchnorm false"),
        (split, "SplitBatchNorm2d at '0.inner'.*overrides"),
        (replaced, "BatchNorm2d at '0.inner'.*overrides"),
        (evo, "EvoNorm2dB0 at '0.inner'.*keeps running statistics.*sync_batchnorm false"),
        (lambda: pytest.importorskip("timm.layers").InplaceAbn(4), "InplaceAbn at '0.inner'"),
        (Statistics, "Statistics at '0.inner'"),
        (lambda: nn.LazyBatchNorm2d(), "LazyBatchNorm2d at '0.inner': its width is not known"),
        (lambda: torch.jit.script(nn.BatchNorm2d(4)), "at '0.inner': TorchScript has compiled it"),
    ],
)
def test_layers_that_are_refused(layer, message):
    """By name and place, and before any other layer is changed."""
    net = nn.Sequential(nn.Sequential(), nn.BatchNorm2d(4))
    net[0].add_module("inner", layer())
    with pytest.raises(ValueError, match=message) as caught:
        synchronise_batch_norm(net, "cpu")
    assert "\n" not in str(caught.value)
    assert type(net[1]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm2d(4, track_running_stats=True), nn.GroupNorm(2, 4), nn.LayerNorm(4)]
)
def test_norms_of_a_single_sample_stay(layer):
    assert type(synchronise_batch_norm(nn.Sequential(layer), "cpu")[0]) is type(layer)
