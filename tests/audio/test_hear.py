"""A trained encoder answers HEAR's three calls."""

import pytest
import torch

from bt_multimodal.encoder_file import export_encoder
from encoders.audio import hear
from encoders.audio.encoders import AudioConvNet

ENCODER = {"class_path": "encoders.audio.encoders.AudioConvNet", "init_args": {"widths": [8, 8]}}
VIEWS = {
    "class_path": "encoders.audio.views.SpectrogramViews",
    "init_args": {"seconds": 0.4, "mean": -6.0, "std": 4.0},
}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    export_encoder(tmp_path / "encoder.safetensors", AudioConvNet(widths=[8, 8]), ENCODER, VIEWS)
    return hear.load_model(str(tmp_path))


def test_scenes(model):
    assert model.sample_rate == 16_000
    for samples in (1600, 6400, 20_000):
        audio = torch.randn(3, samples).clamp(-1, 1)
        scenes = hear.get_scene_embeddings(audio, model)
        assert scenes.shape == (3, model.scene_embedding_size) == (3, 128)
        assert not scenes.requires_grad
    torch.testing.assert_close(hear.get_scene_embeddings(audio, model), scenes)


def test_timestamps(model):
    audio = torch.zeros(2, 16_000)
    audio[0, 8000:8400] = torch.randn(400)
    embeddings, times = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (2, 21, model.timestamp_embedding_size)
    assert times[0].tolist() == pytest.approx([50.0 * i for i in range(21)])
    torch.testing.assert_close(embeddings[0, 10], model(audio[:1, 4800:11_200])[0], atol=1e-4, rtol=0)
    changed = (embeddings[0] - embeddings[1]).abs().amax(1) > 1e-4
    # The click at 500 ms is heard by the windows of 400 ms around it.
    assert changed.nonzero().flatten().tolist() == list(range(7, 15))[: int(changed.sum())]
    assert 7 <= int(changed.sum()) <= 8


def test_other_views_are_refused(tmp_path):
    digits = {"class_path": "encoders.image.views.DigitViews", "init_args": {}}
    export_encoder(tmp_path / "encoder.safetensors", AudioConvNet(widths=[8, 8]), ENCODER, digits)
    with pytest.raises(ValueError, match="not of DigitViews"):
        hear.load_model(str(tmp_path))
