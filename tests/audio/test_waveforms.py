"""Waveform views and the pretrained encoders that take them."""

import pytest
import torch

from bt_multimodal.twins import check_representation
from bt_multimodal.views import draw_views, finish_views
from encoders.audio.pretrained import PretrainedWaveform
from encoders.audio.waveform_views import WaveformViews

PLAIN = {"speed": 0.0, "noise_probability": 0.0, "mask": 0.0}
CLIPS = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (3000, 8000, 20_000)]


def made(views):
    batch = draw_views(views, CLIPS, torch.zeros(3), 1, 0, torch.arange(3))
    return finish_views(views, batch)


def test_undistorted_views_are_the_clip_normalised():
    view = made(WaveformViews(seconds=0.5, **PLAIN)).first
    values, mask = view["input_values"], view["attention_mask"]
    assert values.shape == mask.shape == (3, 8000)
    assert mask.sum(1).tolist() == [3000, 8000, 8000]
    clip = CLIPS[0]
    torch.testing.assert_close(values[0, :3000], (clip - clip.mean()) / clip.std(correction=0))
    assert not values[0, 3000:].any()


def test_speed_noise_and_mask():
    time = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 500 * time)[None]
    views = WaveformViews(seconds=0.5, **PLAIN)
    still = {
        "offset": torch.zeros(1), "speed": torch.ones(1), "noise": torch.zeros(1, dtype=torch.int64),
        "snr": torch.tensor([torch.inf]), "masked": torch.zeros(1), "mask_at": torch.zeros(1),
    }  # fmt: skip
    faster = views.on_batch(tone, still | {"speed": torch.tensor([1.1])}, 0)["input_values"][0]
    assert torch.fft.rfft(faster).abs().argmax() == 275  # 550 Hz in half a second
    # What is left after normalising is the signal plus noise at the ratio asked for.
    plain = views.on_batch(tone, still, 0)["input_values"][0]
    noisy = views.on_batch(tone, still | {"snr": torch.tensor([10.0])}, 0)["input_values"][0]
    share = (noisy @ plain / plain.norm() / noisy.norm()) ** 2
    assert 10 * torch.log10(share / (1 - share)) == pytest.approx(10, abs=0.5)
    padded = torch.cat([tone[:, :2000], torch.full((1, 14_000), torch.nan)], dim=1)
    short = views.on_batch(padded, still, 0)["input_values"][0, :2000]
    noisy = views.on_batch(padded, still | {"snr": torch.tensor([10.0])}, 0)["input_values"][0, :2000]
    share = (noisy @ short / short.norm() / noisy.norm()) ** 2  # padding does not count as signal
    assert 10 * torch.log10(share / (1 - share)) == pytest.approx(10, abs=0.5)
    masked = views.on_batch(tone, still | {"masked": torch.tensor([0.1]), "mask_at": torch.tensor([0.5])}, 0)
    flat = (masked["input_values"][0].diff().abs() < 1e-6).nonzero().flatten()
    assert (flat.min(), flat.max(), len(flat)) == (3600, 4398, 799)


def test_both_views_are_drawn_for_themselves():
    batch = made(WaveformViews(seconds=0.5))
    assert (batch.first["input_values"] - batch.second["input_values"]).abs().mean() > 0.1
    assert batch.first["input_values"].isfinite().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("hubert")
    HubertModel(config).save_pretrained(path)
    return path


def test_padding_is_not_heard(folder):
    encoder = PretrainedWaveform(str(folder)).eval()
    short, long = WaveformViews(seconds=0.2), WaveformViews(seconds=1.0)
    clip = CLIPS[0]
    outputs = [encoder(views.clean_batch(views.clean(clip)[None])) for views in (short, long)]
    check_representation(encoder, outputs[0])
    assert encoder.features_dim == 16
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)


def test_training_leaves_the_front_as_it_is(folder):
    encoder = PretrainedWaveform(str(folder)).train()
    encoder(made(WaveformViews(seconds=0.5)).first).sum().backward()
    front = [p.grad for p in encoder.model.feature_extractor.parameters()]
    assert all(grad is None for grad in front)
    assert any(p.grad is not None for p in encoder.model.encoder.parameters())


def test_what_is_no_waveform_model(tmp_path):
    with pytest.raises(ValueError, match=r"cannot load '.*nowhere'"):
        PretrainedWaveform(str(tmp_path / "nowhere"))
    from transformers import BertConfig, BertModel

    small = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    BertModel(small).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertModel, which does not take waveforms"):
        PretrainedWaveform(str(tmp_path))
