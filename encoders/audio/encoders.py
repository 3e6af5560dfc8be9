"""Audio encoders for log-mel spectrograms ``[B, 1, F, T]``: ``F`` mel bands, ``T`` frames.

Each is an ``nn.Module`` with random weights that returns features ``[B, features_dim]``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchvision
from einops import rearrange, reduce, repeat
from torch import Tensor, nn


class AudioNTT(nn.Module):
    """The CNN of BYOL-A's second version ("AudioNTT2022", Niizumi et al., 2023, section III-D).

    Two blocks of 3 x 3 convolution, BatchNorm, ReLU and 2 x 2 max-pooling are followed by an MLP on each
    frame's bands and channels. The MLP's input and output are concatenated and pooled over time by
    mean + max.

    Args:
        n_mels: mel bands ``F`` of the spectrograms, a multiple of 4.
        channels: channels of both convolutions.
        hidden: width of the MLP's two layers.
        dropout: dropout rate between the MLP's layers.
    """

    def __init__(self, n_mels: int = 64, channels: int = 64, hidden: int = 2048, dropout: float = 0.3):
        super().__init__()
        if n_mels < 4 or n_mels % 4:
            raise ValueError(f"n_mels must be a multiple of 4, not {n_mels}")
        local = channels * (n_mels // 4)
        self.blocks = nn.Sequential(*_pooled(1, channels), *_pooled(channels, channels))
        self.mlp = nn.Sequential(
            nn.Linear(local, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.features_dim = local + hidden

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 1, F, T]`` as ``[B, features_dim]``."""
        local = _frames(self.blocks(view))
        return _mean_and_max(torch.cat([local, self.mlp(local)], dim=2))


class AudioConvNet(nn.Module):
    """A light CNN for CPUs: strided 3 x 3 convolutions, then mean + max over time.

    Only time is pooled. The bands stay separate, because a band's position carries its meaning.

    Args:
        n_mels: mel bands ``F`` of the spectrograms, a multiple of ``2^len(widths)``.
        widths: channels of each convolution of stride 2.

    Raises:
        ValueError: if ``widths`` is empty or ``n_mels`` is not such a multiple.
    """

    def __init__(self, n_mels: int = 64, widths: Sequence[int] = (32, 64, 128, 128)):
        super().__init__()
        if not widths or n_mels % 2 ** len(widths):
            raise ValueError(
                f"AudioConvNet needs 1 or more widths and n_mels a multiple of 2^{len(widths)}, not {n_mels}"
            )
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((1, *widths)):
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features_dim = widths[-1] * (n_mels // 2 ** len(widths))
        # With few channels this layout is much faster on CPUs; loading a state dict preserves it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 1, F, T]`` as ``[B, features_dim]``."""
        x = self.layers(view.contiguous(memory_format=torch.channels_last))
        return _mean_and_max(_frames(x))


class SpectrogramResNet(nn.Module):
    """A torchvision ResNet with a one-channel stem and without its head.

    Args:
        name: torchvision's name: ``"resnet18"``, ``"resnet50"``, ...
    """

    def __init__(self, name: str = "resnet18"):
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models, include="*resne*t*")
        if name not in known:
            raise ValueError(f"there is no ResNet {name!r}; there are {', '.join(sorted(known))}")
        module = torchvision.models.get_model(name, weights=None, zero_init_residual=True)
        module.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.features_dim = module.fc.in_features
        module.fc = nn.Identity()
        self.module = module

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 1, F, T]`` as ``[B, features_dim]``."""
        return self.module(view)


class SpectrogramViT(nn.Module):
    """A mean-pooled Vision Transformer on patches of a spectrogram (Dosovitskiy et al., 2021).

    Position embeddings are fixed sines and cosines of band and time, so spectrograms may have any length.
    Frames that do not fill a patch are dropped.

    Args:
        n_mels: mel bands ``F`` of the spectrograms, a multiple of ``patch[0]``.
        patch: bands and frames of a patch.
        width: width of the tokens and ``features_dim``, a multiple of 4 and of ``heads``.
        depth: number of Transformer layers.
        heads: number of attention heads.
    """

    def __init__(
        self,
        n_mels: int = 64,
        patch: tuple[int, int] = (16, 8),
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
    ):
        super().__init__()
        if n_mels % patch[0] or width % 4 or width % heads:
            raise ValueError(
                f"n_mels ({n_mels}) must be a multiple of the patch's bands ({patch[0]}) "
                f"and width ({width}) a multiple of 4 and of heads ({heads})"
            )
        self.features_dim = width
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(depth)
            ),
            nn.LayerNorm(width),
        )

    def forward(self, view: Tensor) -> Tensor:
        """Encodes ``[B, 1, F, T]`` as ``[B, features_dim]``."""
        patches = self.patches(view)
        n_bands, n_frames = patches.shape[2:]
        half = self.features_dim // 2
        bands = repeat(_waves(n_bands, half, view.device), "c f -> c f t", t=n_frames)
        frames = repeat(_waves(n_frames, half, view.device), "c t -> c f t", f=n_bands)
        tokens = rearrange(patches + torch.cat([bands, frames]), "b c f t -> b (f t) c")
        return reduce(self.layers(tokens), "b n c -> b c", "mean")


def _waves(n: int, width: int, device: torch.device) -> Tensor:
    """Returns sines and cosines of ``n`` positions, ``[width, n]`` (Vaswani et al., 2017)."""
    rates = 10_000 ** -(torch.arange(width // 2, device=device) / (width // 2))
    angles = rates[:, None] * torch.arange(n, device=device)
    return torch.cat([angles.sin(), angles.cos()])


def _pooled(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]


def _frames(x: Tensor) -> Tensor:
    return rearrange(x, "b c f t -> b t (c f)")


def _mean_and_max(frames: Tensor) -> Tensor:
    return reduce(frames, "b t c -> b c", "mean") + reduce(frames, "b t c -> b c", "max")
