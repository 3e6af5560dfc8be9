"""Image encoders: any classifier of torchvision or timm without its head, and a small ConvNet.

Each is an ``nn.Module`` that takes float ``[B, C, H, W]`` and returns features ``[B, features_dim]``. Weights
are random; pretrained ones are loaded from a checkpoint.
"""

import difflib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d


def _unknown(name: str, known: Iterable[str], library: str) -> ValueError:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return ValueError(f"{library} has no classifier {name!r}; the nearest name is {near[0]!r}")


def _remove_head(module: nn.Module, name: str) -> int:
    """Replaces the last ``Linear`` of the module tree by the identity and returns its input width."""
    linear = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"{name} does not end in a Linear layer, so there is no head to remove")
    path, head = linear[-1]
    module.set_submodule(path, nn.Identity(), strict=True)
    return head.in_features


class TorchvisionEncoder(nn.Module):
    """A torchvision classifier without its last linear layer.

    The network is ``self.module``, so its state dict has torchvision's keys.

    Args:
        name: a name in ``torchvision.models.list_models(module=torchvision.models)``.
        small_stem: for ResNets, use a 3 x 3 stem of stride 1 and no max-pooling, for pictures of about 32
            pixels (SimCLR, Chen et al., 2020, appendix B.9).
        zero_init_residual: for ResNets, start every residual branch at zero, as the reference code of Barlow
            Twins does. Other networks ignore it.
        width: for ResNets, channels of the stem; all layers scale with it. Published networks have 64.

    Raises:
        ValueError: if the name is unknown, the network has no linear head, ``width`` is not positive, or
            ``small_stem`` or ``width`` is used with another network.
    """

    def __init__(
        self,
        name: str = "resnet50",
        small_stem: bool = False,
        zero_init_residual: bool = True,
        width: int = 64,
    ):
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise _unknown(name, known, "torchvision")
        is_resnet = torchvision.models.get_model_builder(name).__module__.endswith(".resnet")
        if small_stem and not is_resnet:
            raise ValueError(f"small_stem is for ResNets, not for {name}")
        if width != 64 and not (is_resnet and width > 0):
            raise ValueError(f"width is for ResNets and must be positive, not {width} for {name}")
        options: dict[str, Any] = {"zero_init_residual": zero_init_residual} if is_resnet else {}
        if name in ("googlenet", "inception_v3"):
            # With auxiliary heads the output in training is a tuple; without init_weights they warn.
            options = {"aux_logits": False, "init_weights": True}
        self.name = name
        self.module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        self.features_dim = _remove_head(self.module, name)
        if width != 64:
            self.features_dim = self.features_dim * width // 64
            _scale_channels(self.module, width)
        if small_stem:
            stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
            self.module.set_submodule("conv1", stem, strict=True)
            self.module.set_submodule("maxpool", nn.Identity(), strict=True)

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 3, H, W]`` as ``[B, features_dim]``."""
        return self.module(_channels_last_on_gpu(view))


def _channels_last_on_gpu(view: Tensor) -> Tensor:
    """Returns the view in the layout that tensor cores use: the reference recipe is 1.7 times as fast."""
    return view.contiguous(memory_format=torch.channels_last) if view.is_cuda else view


def _scale_channels(resnet: nn.Module, width: int) -> None:
    """Replaces a ResNet's convolutions and norms by ones ``width / 64`` as wide, initialised the same way."""
    for path, layer in list(resnet.named_modules()):
        old: Any = layer
        new: nn.Module
        if isinstance(layer, nn.Conv2d):
            n_in = old.in_channels if old.in_channels == 3 else old.in_channels * width // 64
            groups = old.groups if old.groups == 1 else old.groups * width // 64
            new = nn.Conv2d(
                n_in, old.out_channels * width // 64, old.kernel_size, old.stride, old.padding, old.dilation,
                groups, bias=False,
            )  # fmt: skip
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            new = nn.BatchNorm2d(old.num_features * width // 64)
            # Keeps the zero with which the last norm of a residual branch may start.
            nn.init.constant_(new.weight, old.weight[0].item())
        else:
            continue
        resnet.set_submodule(path, new, strict=True)


class TimmEncoder(nn.Module):
    """A timm network with its pooling and without its head.

    Args:
        name: a name in ``timm.list_models()``.

    Raises:
        ValueError: if the name is unknown.
        ModuleNotFoundError: if timm is not installed; the message says what to install.
    """

    def __init__(self, name: str):
        super().__init__()
        try:
            import timm  # an extra, and slow to import
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TimmEncoder needs timm: pip install timm (or this project's timm extra)"
            ) from error
        if not timm.is_model(name):
            raise _unknown(name, timm.list_models(), "timm")
        module: Any = timm.create_model(name, pretrained=False, num_classes=0)
        self.name, self.module = name, module
        # Some networks keep a layer between pooling and head, which is wider than num_features.
        self.features_dim = int(getattr(module, "head_hidden_size", None) or module.num_features)

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 3, H, W]`` as ``[B, features_dim]``."""
        return self.module(_channels_last_on_gpu(view))


class ConvNet(nn.Module):
    """A small ConvNet for pictures of 8 to 32 pixels.

    The network has a 3 x 3 stem and, for each further width, a 3 x 3 convolution of stride 2, all with
    BatchNorm and ReLU. Average pooling over ``grid`` x ``grid`` cells of the picture follows.

    Args:
        widths: channels of the stem and of each stage; ``features_dim`` is the last times ``grid^2``.
        in_channels: 3 for colour, 1 for greyscale.
        depth: additional 3 x 3 convolutions of the same width in each stage.
        grid: cells per side. 1 is global average pooling; more cells preserve position.

    Raises:
        ValueError: if ``widths`` is empty or ``grid`` is below 1.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        in_channels: int = 3,
        depth: int = 0,
        grid: int = 1,
    ):
        super().__init__()
        if not widths:
            raise ValueError("widths is empty: a ConvNet needs at least the stem's width")
        if grid < 1:
            raise ValueError(f"grid must be 1 or more, not {grid}")
        layers = _convolution(in_channels, widths[0], 1)
        for narrow, wide in pairwise(widths):
            layers += _convolution(narrow, wide, 2)
            for _ in range(depth):
                layers += _convolution(wide, wide, 1)
        self.layers = nn.Sequential(*layers)
        self.grid, self.features_dim = grid, widths[-1] * grid**2
        # With few channels this layout is much faster on CPUs; loading a state dict preserves it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, in_channels, H, W]`` as ``[B, features_dim]``."""
        x = self.layers(view.contiguous(memory_format=torch.channels_last))
        return adaptive_avg_pool2d(x, self.grid).flatten(1)


def _convolution(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]
