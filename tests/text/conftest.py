"""Fixtures that the tests of texts share."""

import pytest
from torch import nn

from bt_multimodal.encoder_file import export_encoder


@pytest.fixture
def image_encoder(tmp_path):
    """The file of an encoder that is none of texts."""
    path = tmp_path / "image.safetensors"
    views = {"class_path": "encoders.image.views.ReferenceViews"}
    export_encoder(path, nn.Identity(), {"class_path": "torch.nn.Identity"}, views)
    return path
