"""An exported encoder comes back as it was; what is no such file is refused in one line."""

import pytest
import torch
from safetensors.torch import save_file

from bt_multimodal.encoder_file import export_encoder, load_encoder
from encoders.image.encoders import ConvNet

ENCODER = {
    "class_path": "encoders.image.encoders.ConvNet",
    "init_args": {"widths": [8, 16], "in_channels": 1},
}
VIEWS = {"class_path": "encoders.image.views.DigitViews", "init_args": {"noise": 0.5}}


def test_round_trip(tmp_path):
    encoder = ConvNet([8, 16], in_channels=1).eval()
    export_encoder(tmp_path / "encoder.safetensors", encoder, ENCODER, VIEWS)
    loaded = load_encoder(tmp_path)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(loaded.encoder(x), encoder(x))
    assert loaded.augmentations.noise == 0.5
    assert not torch.equal(load_encoder(tmp_path, weights=False).encoder(x), encoder(x))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]
    (tmp_path / "other").write_bytes(b"")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # as readable as any other file


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="there is no encoder at"):
        load_encoder(tmp_path)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_encoder(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no bt_multimodal.encoder/1"):
        load_encoder(tmp_path / "other.safetensors")
    encoder = ConvNet([8, 16], in_channels=1)
    wider = {**ENCODER, "init_args": {"widths": [8, 32], "in_channels": 1}}
    export_encoder(tmp_path / "misfit.safetensors", encoder, wider, VIEWS)
    with pytest.raises(ValueError, match="do not fit ConvNet"):
        load_encoder(tmp_path / "misfit.safetensors")
    missing = {"class_path": "encoders.image.encoders.Missing"}
    export_encoder(tmp_path / "missing.safetensors", encoder, missing, VIEWS)
    with pytest.raises(ValueError, match=r"cannot build encoders.image.encoders.Missing"):
        load_encoder(tmp_path / "missing.safetensors")
