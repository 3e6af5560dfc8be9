"""What a hub folder states of preprocessing gives evaluation's pixels in timm and transformers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bt_multimodal.encoder_file import export_encoder
from encoders.image.encoders import TorchvisionEncoder
from encoders.image.exchange import convert, preprocessing
from encoders.image.supervised_views import ClassificationViews
from encoders.image.views import DigitViews, ReferenceViews, SmallImageViews

timm = pytest.importorskip("timm")

SIZES = [(32, 32), (64, 48), (90, 120), (500, 333), (224, 224), (1, 1), (7, 300)]  # H, W
SETS = {
    "224": ReferenceViews(),
    "32": ReferenceViews(size=32),
    **{f"{n}": ReferenceViews(size=n) for n in (1, 63, 64, 96, 97, 160, 225)},
    "classification": ClassificationViews(),
    "classification, 96": ClassificationViews(size=96),
    "squeezed": ClassificationViews(size=64, squeeze=True),
    "small": SmallImageViews(),
    "small, 28": SmallImageViews(size=28, output_size=20, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]),
}


def picture(height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def evaluated(views, image):
    return views.clean_batch(views.collate([views.clean(views.decode(np.asarray(image)))]))[0]


@pytest.mark.parametrize("views", SETS.values(), ids=SETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_timm_makes_the_same_pixels(views, size):
    stated = json.loads(json.dumps(preprocessing(views)))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=stated))
    found, expected = transform(picture(*size)), evaluated(views, picture(*size))
    # The same 8 bits; only the division by the standard deviation rounds otherwise.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["224", "small", "squeezed"])
def test_the_folder_gives_the_same_features(tmp_path, name):
    from transformers import AutoImageProcessor, AutoModel

    views = SETS[name]
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18").eval()
    spec = {"class_path": "encoders.image.encoders.TorchvisionEncoder", "init_args": {"name": "resnet18"}}
    arguments = {"size": views.size} | ({"squeeze": True} if name == "squeezed" else {})
    of_views = {"class_path": f"{type(views).__module__}.{type(views).__name__}", "init_args": arguments}
    export_encoder(tmp_path / "encoder.safetensors", encoder, spec, of_views)
    convert(tmp_path / "encoder.safetensors", tmp_path / "hub", "hub")
    image = picture(90, 120)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hub")
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    expected = evaluated(views, image)[None]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=2e-6)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(tmp_path / "hub").eval()(pixels).pooler_output.flatten(1)
        ours = encoder(expected)
    assert torch.nn.functional.cosine_similarity(theirs, ours).item() > 1 - 1e-5
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert ("cut" in card) == (name == "224")


class Tinted(ReferenceViews):
    def clean_batch(self, data):
        return super().clean_batch(data) * 2


class Jittered(ReferenceViews):
    strengths = (0.8, 0.8, 0.2)


@pytest.mark.parametrize("views", [DigitViews(), Tinted(), object()], ids=["digits", "own", "no set"])
def test_what_timm_cannot_state_is_refused(views):
    with pytest.raises(ValueError, match=f"cannot say how {type(views).__name__} prepares a picture"):
        preprocessing(views)
    assert preprocessing(Jittered(size=64))["input_size"] == [3, 64, 64]
