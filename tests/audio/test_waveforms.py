"""Waveform views and the pretrained encoders that take them."""

import pytest
import torch

from bt_multimodal.twins import check_representation
from bt_multimodal.views import draw_views, finish_views
from encoders.audio.pretrained import PretrainedAST, PretrainedWaveform
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
        "gain": torch.ones(1),
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


def test_gain_is_in_decibels_and_only_left_without_normalising():
    views = WaveformViews(seconds=0.5, gain=6.0, normalise=False, **PLAIN)
    batch = made(views)
    for view in batch.first, batch.second:
        ratio = view["input_values"][0, :3000] / CLIPS[0]
        decibels = 20 * torch.log10(ratio.mean())
        assert ratio.std() < 1e-4
        assert 0.01 < abs(decibels) < 6
    assert not torch.equal(batch.first["input_values"], batch.second["input_values"])
    undone = made(WaveformViews(seconds=0.5, gain=6.0, **PLAIN))
    torch.testing.assert_close(undone.first["input_values"][:2], undone.second["input_values"][:2])


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


def test_a_loaded_model_trains_from_the_start(folder):
    assert all(part.training for part in PretrainedWaveform(str(folder)).modules())


def test_training_leaves_the_front_as_it_is(folder):
    encoder = PretrainedWaveform(str(folder)).train()
    encoder(made(WaveformViews(seconds=0.5)).first).sum().backward()
    front = [p.grad for p in encoder.model.feature_extractor.parameters()]
    assert all(grad is None for grad in front)
    assert any(p.grad is not None for p in encoder.model.encoder.parameters())


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory):
    from transformers import ASTConfig, ASTModel

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=96,
        num_mel_bins=128,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("ast")
    ASTModel(config).save_pretrained(path)
    return path


def test_ast_hears_what_its_own_front_end_gives(ast_folder):
    from transformers import ASTFeatureExtractor

    encoder = PretrainedAST(str(ast_folder)).eval()
    clips = [0.1 * clip for clip in CLIPS]
    views = WaveformViews(seconds=1.25, normalise=False)
    view = views.clean_batch(torch.stack([views.clean(clip) for clip in clips]))
    theirs = ASTFeatureExtractor(max_length=96)([clip.numpy() for clip in clips], 16_000, return_tensors="pt")
    with torch.no_grad():
        states = encoder.model(**theirs).last_hidden_state[:, 2:].view(3, 12, 9, 16)  # bands, time
        found = encoder(view)
    for i, frames in enumerate([1 + (len(clip) - 400) // 160 for clip in clips]):
        heard = [t for t in range(9) if 10 * t < frames]
        torch.testing.assert_close(found[i], states[i, :, heard].mean((0, 1)), atol=1e-5, rtol=0)
    check_representation(encoder, found)
    short = WaveformViews(seconds=0.2, normalise=False)
    alone = encoder(short.clean_batch(short.clean(clips[0])[None]))
    torch.testing.assert_close(alone[0], found[0], atol=1e-5, rtol=0)
    assert (
        encoder({"input_values": torch.ones(1, 3), "attention_mask": torch.ones(1, 3).long()})
        .isfinite()
        .all()
    )


def test_what_is_no_ast(folder):
    with pytest.raises(ValueError, match="HubertModel, not an ASTModel"):
        PretrainedAST(str(folder))


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
