"""An exported encoder comes back as it was; what is no such file is refused in one line."""

import importlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
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
    state = loaded.encoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    torch.testing.assert_close(loaded.encoder(x), encoder(x))
    assert loaded.augmentations.noise == 0.5
    assert not torch.allclose(load_encoder(tmp_path, weights=False).encoder(x), encoder(x))
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


def exported(folder):
    encoder = ConvNet([8, 16], in_channels=1).eval()
    export_encoder(folder / "encoder.safetensors", encoder, ENCODER, VIEWS)
    return load_encoder(folder)


def test_representations_of_undecoded_contents(tmp_path):
    loaded = exported(tmp_path)
    digits = [np.full((8, 8), 3 * i, np.uint8) for i in range(10)]
    features = loaded.embed(digits, batch_size=4)
    assert features.shape == (10, loaded.encoder.features_dim)
    assert not features.requires_grad
    for i in (0, 9):
        view = loaded.augmentations.clean_batch(loaded.augmentations.decode(digits[i])[None])
        torch.testing.assert_close(features[i], loaded.encoder(view)[0].detach())
    file = io.BytesIO()
    Image.fromarray(digits[9]).save(file, "png")
    torch.testing.assert_close(loaded.embed([file.getvalue()])[0], features[9])


def test_contents_that_have_none(tmp_path):
    loaded = exported(tmp_path)
    with pytest.raises(ValueError, match="there are no contents to embed"):
        loaded.embed([])
    with pytest.raises(ValueError, match=r"content 1 \(from 0\) cannot be decoded: \w*Error: ") as caught:
        loaded.embed([np.zeros((8, 8), np.uint8), b"no picture"])
    assert "\n" not in str(caught.value)


def test_an_encoder_whose_extra_is_not_installed(tmp_path, monkeypatch):
    exported(tmp_path)
    real = importlib.import_module

    def without_torchvision(name):
        if name.startswith("encoders.image"):
            raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_torchvision)
    with pytest.raises(ValueError, match=r"'torchvision'; .*pip install 'bt_multimodal\[image\]'$"):
        load_encoder(tmp_path)
