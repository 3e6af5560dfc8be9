"""Audio encoders give what they say, for any length of sound."""

import pytest
import torch

from bt_multimodal.twins import check_representation
from encoders.audio.encoders import AudioConvNet, AudioNTT, SpectrogramResNet, SpectrogramViT


@pytest.mark.parametrize(
    ("encoder", "features_dim"),
    [
        (AudioNTT(), 3072),
        (AudioNTT(n_mels=32, channels=8, hidden=16), 80),
        (AudioConvNet(), 512),
        (SpectrogramResNet("resnet18"), 512),
        (SpectrogramViT(depth=2), 192),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
@pytest.mark.parametrize("frames", [40, 101])
def test_shapes(encoder, features_dim, frames):
    bands = 32 if features_dim == 80 else 64
    assert encoder.features_dim == features_dim
    output = encoder(torch.randn(2, 1, bands, frames))
    check_representation(encoder, output)
    output.sum().backward()


def test_bands_are_kept_apart():
    """A sound in a low band is not one in a high band, whenever it comes."""
    encoder = AudioConvNet(widths=[8, 8]).eval()
    low, late, high = torch.zeros(3, 1, 1, 64, 64)
    low[..., 8, 20] = late[..., 8, 40] = high[..., 40, 20] = 5.0
    torch.testing.assert_close(encoder(low), encoder(late))
    assert not torch.allclose(encoder(low), encoder(high))


def test_the_transformer_knows_where_and_its_layers_differ():
    encoder = SpectrogramViT(width=16, depth=2, heads=2).eval()
    early, late = torch.zeros(2, 1, 1, 64, 32)
    early[..., :16, :8] = late[..., :16, 24:] = torch.randn(16, 8)
    assert not torch.allclose(encoder(early), encoder(late), atol=1e-5)
    first, second = (encoder.get_parameter(f"layers.{i}.linear1.weight") for i in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AudioNTT(n_mels=30), "multiple of 4, not 30"),
        (lambda: AudioConvNet(widths=[]), "1 or more widths"),
        (lambda: AudioConvNet(n_mels=40), r"multiple of 2\^4, not 40"),
        (lambda: SpectrogramResNet("vgg11"), "no ResNet 'vgg11'"),
        (lambda: SpectrogramViT(n_mels=40), r"n_mels \(40\) must be a multiple"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
