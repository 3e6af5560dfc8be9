import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as tv

from bt_multimodal.draws import uniforms
from bt_multimodal.views import draw_views, finish_views
from encoders.image import ops
from encoders.image.ops import reference_crop_box
from encoders.image.views import DigitViews, ReferenceViews, SmallImageViews, decode_rgb

N = 10_000
SETS = [ReferenceViews(size=32), SmallImageViews(), DigitViews()]


def pictures(augmentations, count=8):
    rng = np.random.default_rng(0)
    shape = (70, 50, 3) if isinstance(augmentations, ReferenceViews) else (32, 32, 3)
    if isinstance(augmentations, DigitViews):
        shape = (8, 8)
    return [augmentations.decode(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def drawn(augmentations, view, count=N):
    return augmentations.draw(uniforms(0, 0, torch.arange(count), view, augmentations.draws), view)


def rate(mask, expected):
    """A share of ten thousand, within four standard errors."""
    assert abs(mask.float().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / N) + 1e-9


def uniform(values, low, high):
    """Kolmogorov-Smirnov distance from U(low, high), at the 0.1 % level."""
    x = ((values.double() - low) / (high - low)).sort()[0]
    grid = torch.arange(len(x), dtype=torch.float64)
    distance = torch.maximum((x - grid / len(x)).abs(), (x - (grid + 1) / len(x)).abs()).max()
    assert distance < 1.95 / math.sqrt(len(x))


@pytest.mark.parametrize("augmentations", SETS, ids=lambda a: type(a).__name__)
def test_a_batch_of_eight_is_the_eight_singles(augmentations):
    decoded, label = pictures(augmentations), torch.arange(8)
    index = torch.tensor([5, 0, 7, 123456, 9, 2, 31, 8])
    whole = finish_views(augmentations, draw_views(augmentations, decoded, label, 3, 2, index))
    channels = decoded[0].shape[0]
    side = {ReferenceViews: 32, SmallImageViews: 24, DigitViews: 8}[type(augmentations)]
    for view in (whole.first, whole.second):
        assert view.shape == (8, channels, side, side)
        assert view.dtype == torch.float32
        assert view.isfinite().all()
    assert (whole.first - whole.second).abs().mean() > 0.1
    for i in range(8):
        single = finish_views(
            augmentations,
            draw_views(augmentations, decoded[i : i + 1], label[i : i + 1], 3, 2, index[i : i + 1]),
        )
        torch.testing.assert_close(single.first, whole.first[i : i + 1], atol=2e-5, rtol=0)
        torch.testing.assert_close(single.second, whole.second[i : i + 1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("augmentations", SETS, ids=lambda a: type(a).__name__)
def test_every_parameter_is_batch_first_and_every_number_used(augmentations):
    u = uniforms(0, 0, torch.arange(64), 1, augmentations.draws)
    parameters = augmentations.draw(u, 1)
    assert all(value.shape[0] == 64 for value in parameters.values())
    # Replacing any one column has to change something, or fewer draws would do.
    other = uniforms(1, 0, torch.arange(64), 1, augmentations.draws)
    for column in range(augmentations.draws):
        changed = u.clone()
        changed[:, column] = other[:, column]
        again = augmentations.draw(changed, 1)
        assert any(not torch.equal(parameters[name], again[name]) for name in parameters), column


@pytest.mark.parametrize("view", [0, 1])
def test_reference_marginals(view):
    p = drawn(ReferenceViews(), view)
    rate(p["flip"], 0.5)
    rate(p["grey"], 0.2)
    rate(p["blur"], (1.0, 0.1)[view])
    rate(p["solarise"], (0.0, 0.2)[view])
    uniform(p["sigma"], 0.1, 2.0)
    jittered = p["hue"] != 0
    rate(jittered, 0.8)
    assert (p["factors"][~jittered] == 1).all()
    uniform(p["hue"][jittered], -0.1, 0.1)
    for factor, strength in zip(p["factors"][jittered].T, (0.4, 0.4, 0.2), strict=True):
        uniform(factor, 1 - strength, 1 + strength)
    orders, counts = p["order"].unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > N / 24 * 0.75


@pytest.mark.parametrize("view", [0, 1])
def test_reference_marginals_as_given(view):
    views = ReferenceViews(flip=0.0, jitter=0.0, grey=0.7, blur=(0.3, 0.6), solarise=(0.4, 0.9))
    p = drawn(views, view)
    assert not p["flip"].any()
    assert (p["factors"] == 1).all()
    assert (p["hue"] == 0).all()
    rate(p["grey"], 0.7)
    rate(p["blur"], (0.3, 0.6)[view])
    rate(p["solarise"], (0.4, 0.9)[view])


def test_no_crop_is_the_whole_picture():
    views = ReferenceViews(size=16, crop_scale=(1.0, 1.0))
    picture = views.decode(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    made = views.on_record(picture, {"crop": drawn(views, 0)["crop"][0]})
    whole = ops.crop_and_resize(picture, (0, 0, 40, 40), 16, Image.Resampling.BICUBIC)
    assert torch.equal(made, whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blur": (1.5, 0.1)}, "blur must be a probability, not 1.5"),
        ({"flip": -0.1}, "flip must be a probability, not -0.1"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale must be a range within"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale must be a range within"),
    ],
)
def test_wrong_reference_views(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReferenceViews(**arguments)


def test_the_reference_crop_is_torchvisions_on_the_pil_image():
    augmentations = ReferenceViews(size=48)
    raw = np.random.default_rng(1).integers(0, 256, (90, 61, 3), dtype=np.uint8)
    decoded, image = decode_rgb(raw), Image.fromarray(raw)
    crop = drawn(augmentations, 0, 20)["crop"]
    for u in crop:
        box = reference_crop_box(u, 90, 61, (0.08, 1.0), (3 / 4, 4 / 3))
        theirs = tv.resized_crop(image, *box, [48, 48], transforms.InterpolationMode.BICUBIC)
        ours = augmentations.on_record(decoded, {"crop": u})
        assert torch.equal(ours, tv.pil_to_tensor(theirs))


@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (256, 256), (40, 33)])
@pytest.mark.parametrize("size", [224, 32])
def test_reference_evaluation_is_torchvisions(shape, size):
    raw = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(Image.fromarray(raw))
    augmentations = ReferenceViews(size)
    clean = augmentations.clean(augmentations.decode(raw))
    assert clean.shape == (3, size, size)
    assert clean.dtype == torch.uint8
    torch.testing.assert_close(augmentations.clean_batch(clean[None])[0], theirs, atol=1e-6, rtol=0)


def test_reference_view_at_rest_is_the_picture_normalised():
    augmentations = ReferenceViews(size=16)
    data = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    off = torch.zeros(2, dtype=torch.bool)
    p = {
        "flip": torch.tensor([True, False]),
        "factors": torch.ones(2, 3),
        "hue": torch.zeros(2),
        "order": torch.arange(4).expand(2, 4),
        "grey": off,
        "blur": off,
        "sigma": torch.ones(2),
        "solarise": off,
    }
    clean = augmentations.clean_batch(data)
    view = augmentations.on_batch(data, p, 0)
    assert torch.equal(view, torch.stack([clean[0].flip(-1), clean[1]]))


def test_small_image_marginals_are_alike_in_both_views():
    for view in (0, 1):
        p = drawn(SmallImageViews(grey=0.3, min_scale=0.5), view)
        rate(p["flip"], 0.5)
        rate(p["grey"], 0.3)
        jittered = p["hue"] != 0
        rate(jittered, 0.8)
        uniform(p["hue"][jittered], -0.1, 0.1)
        uniform(p["brightness"][jittered], 0.6, 1.4)
        uniform(p["contrast"][jittered], 0.6, 1.4)
        uniform(p["saturation"][jittered], 0.8, 1.2)
        area = p["height"] * p["width"] / 32**2
        assert area.min() > 0.4
        assert area.max() <= 1 + 1e-5


def test_clean_small_images_are_whole():
    augmentations = SmallImageViews()
    decoded = pictures(augmentations)
    clean = augmentations.clean_batch(torch.stack([augmentations.clean(d) for d in decoded]))
    assert clean.shape == (8, 3, 32, 32)


def test_decoding_resizes_to_the_size():
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), (200, 100, 0)).save(buffer, "PNG")
    small = SmallImageViews(size=20).decode(buffer.getvalue())
    assert small.shape == (3, 20, 20)
    assert small.flatten(1).unique(dim=1).flatten().tolist() == [200, 100, 0]
    assert DigitViews(size=9).decode(buffer.getvalue()).shape == (1, 9, 9)
    with pytest.raises(ValueError, match="cannot decode the picture"):
        SmallImageViews().decode(b"nothing")


@pytest.mark.parametrize("size", [8, 7])
def test_digit_noise_is_normal_and_independent(size):
    noise = drawn(DigitViews(size=size), 0)["noise"].flatten(1)
    assert noise.shape == (N, size * size)
    standard = 0.5 * (1 + torch.erf(noise.flatten()[:N] / math.sqrt(2)))
    uniform(standard, 0, 1)
    covariance = noise.T.cov()
    assert (covariance - torch.eye(size * size)).abs().max() < 0.07


def test_digit_strengths_of_zero_give_the_picture():
    augmentations = DigitViews(rotation=0, scale=0, shear=0, shift=0, gain=0, noise=0)
    data = torch.stack(pictures(augmentations))
    view = augmentations.on_batch(data, drawn(augmentations, 0, 8), 0)
    torch.testing.assert_close(view, augmentations.clean_batch(data), atol=1e-5, rtol=0)


def test_digit_strengths_are_in_their_units():
    p = drawn(DigitViews(rotation=30.0, shift=0.25), 1)
    uniform(p["angle"], -math.pi / 6, math.pi / 6)
    uniform(p["shift"][:, 0], -0.25, 0.25)
    uniform(p["gain"], 0.8, 1.2)
    # A shift of a quarter of eight columns is two columns.
    augmentations = DigitViews(rotation=0, scale=0, shear=0, gain=0, noise=0)
    data = torch.stack(pictures(augmentations))
    fixed = drawn(augmentations, 0, 8) | {"shift": torch.tensor([[0.25, 0.0]]).expand(8, 2)}
    view = augmentations.on_batch(data, fixed, 0)
    expected = augmentations.clean_batch(data)[..., 2:]
    torch.testing.assert_close(view[..., :6], expected, atol=1e-4, rtol=0)
