"""Views for classifiers against torchvision's transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from bt_multimodal.draws import uniforms
from encoders.image import ops
from encoders.image.supervised_views import ClassificationViews
from encoders.image.views import CROP_RATIO


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_testing_is_resize_and_centre_crop(picture):
    views = ClassificationViews(size=56)
    theirs = transforms.Compose(
        [
            transforms.Resize(64),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )(picture)
    ours = views.clean_batch(views.clean(ops.from_pil(picture))[None])[0]
    torch.testing.assert_close(ours, theirs)


def test_training_is_a_resized_crop_and_a_flip(picture):
    views = ClassificationViews(size=32, crop_scale=(0.2, 0.9))
    decoded = ops.from_pil(picture)
    parameters = views.draw(uniforms(0, 0, torch.arange(16), 0, views.draws), 0)
    assert set(parameters["flip"].tolist()) == {True, False}
    data = torch.stack(
        [views.on_record(decoded, {"crop": crop, "flip": None}) for crop in parameters["crop"]]
    )
    for crop, made in zip(parameters["crop"], data, strict=True):
        top, left, height, width = ops.reference_crop_box(crop, 90, 130, (0.2, 0.9), CROP_RATIO)
        assert 0.15 < height * width / (90 * 130) < 0.95
        theirs = transforms.functional.resized_crop(picture, top, left, height, width, [32, 32])
        assert torch.equal(made, ops.from_pil(theirs))
    view = views.on_batch(data, parameters, 0)
    plain = views.clean_batch(data)
    for i, flipped in enumerate(parameters["flip"].tolist()):
        torch.testing.assert_close(view[i], plain[i].flip(-1) if flipped else plain[i])


def test_testing_squeezes_if_asked(picture):
    views = ClassificationViews(size=32, squeeze=True)
    theirs = picture.resize((32, 32), Image.Resampling.BILINEAR)
    assert torch.equal(views.clean(ops.from_pil(picture)), ops.from_pil(theirs))
