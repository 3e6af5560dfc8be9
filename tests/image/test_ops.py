import io
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from encoders.image import ops

B = 6


def pictures(batch=B, size=24, seed=0):
    """Smooth-ish random colours in [0, 1], with flat grey, black and white patches (hue's edges)."""
    x = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
    x[:, :, :2], x[:, :, 2:4], x[:, :, 4:6] = 0.5, 0.0, 1.0
    return x


def each(function, images, factors):
    return torch.stack([function(x, f) for x, f in zip(images, factors.tolist(), strict=True)])


@pytest.fixture
def torchvision_luma(monkeypatch):
    """torchvision's tensor path rounds red to 0.2989; PIL, and so the reference code, does not."""
    monkeypatch.setattr(ops, "LUMA", (0.2989, 0.587, 0.114))


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [11, 24, 40])
def test_resized_crop_is_the_antialiased_resize_of_the_box(kernel, size):
    images = pictures() * 255
    boxes = [(0, 0, 24, 24), (3, 5, 20, 16), (10, 0, 7, 24), (23, 23, 1, 1), (1, 2, 13, 13), (0, 6, 24, 9)]
    top, left, height, width = torch.tensor(boxes, dtype=torch.float32).unbind(1)
    flip = torch.tensor([False, True, False, False, True, False])
    ours = ops.resized_crop(images, top, left, height, width, flip, size, kernel)
    for x, (t, le, h, w), mirrored, mine in zip(images, boxes, flip, ours, strict=True):
        theirs = functional.interpolate(
            x[None, :, t : t + h, le : le + w], (size, size), mode=kernel, antialias=True
        )[0]
        theirs = theirs.flip(-1) if mirrored else theirs
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=1e-5)


def test_crop_boxes_stay_inside():
    u = torch.rand(10_000, 4, generator=torch.Generator().manual_seed(1))
    u[:2] = torch.tensor([[0.0] * 4, [1 - 2**-24] * 4])
    box = ops.crop_boxes(u, 32, 20, (0.2, 1.0), (3 / 4, 4 / 3))
    assert (box["top"] >= 0).all()
    assert (box["left"] >= 0).all()
    assert (box["top"] + box["height"] <= 32 + 1e-4).all()
    assert (box["left"] + box["width"] <= 20 + 1e-4).all()
    assert (box["height"] * box["width"] <= 640 + 1e-3).all()


@pytest.mark.parametrize(("rows", "columns"), [(500, 375), (333, 500), (64, 64)])
def test_reference_boxes_are_distributed_as_torchvisions(rows, columns):
    torch.manual_seed(0)
    n, image = 4000, torch.zeros(1, rows, columns)
    u = torch.rand(n, 22)
    ours = torch.tensor([ops.reference_crop_box(v, rows, columns, (0.08, 1.0), (3 / 4, 4 / 3)) for v in u])
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    )
    top, left, height, width = ours.unbind(1)
    assert (ours >= 0).all()
    assert (top + height).max() <= rows
    assert (left + width).max() <= columns
    assert min(height.min(), width.min()) >= 1
    for a, b in zip(ours.T, theirs.T, strict=True):
        # Two-sample Kolmogorov-Smirnov distance; 0.044 is the 0.1 % level for 4000 and 4000.
        grid = torch.cat([a, b]).unique()
        distance = (torch.searchsorted(a.sort()[0], grid, right=True) / n) - (
            torch.searchsorted(b.sort()[0], grid, right=True) / n
        )
        assert distance.abs().max() < 0.044


@pytest.mark.parametrize(("rows", "columns"), [(10, 1000), (1000, 10), (3, 40), (1, 7)])
def test_reference_box_falls_back_to_the_centre_as_torchvisions(rows, columns):
    u = torch.full((22,), 0.99)
    theirs = RandomResizedCrop.get_params(torch.zeros(1, rows, columns), [0.99, 1.0], [3 / 4, 4 / 3])
    assert ops.reference_crop_box(u, rows, columns, (0.99, 1.0), (3 / 4, 4 / 3)) == tuple(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ops.brightness, tv.adjust_brightness),
        (ops.contrast, tv.adjust_contrast),
        (ops.saturation, tv.adjust_saturation),
    ],
)
@pytest.mark.usefixtures("torchvision_luma")
def test_blends_are_torchvisions(ours, theirs):
    images, factor = pictures(), torch.tensor([0.0, 0.6, 0.9, 1.0, 1.2, 1.4])
    torch.testing.assert_close(ours(images, factor), each(theirs, images, factor), atol=1e-5, rtol=0)


def test_hue_is_torchvisions():
    images, shift = pictures(), torch.tensor([-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
    torch.testing.assert_close(ops.hue(images, shift), each(tv.adjust_hue, images, shift), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("torchvision_luma")
def test_jitter_follows_each_samples_order():
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    order = orders[orders.sort(1)[0].eq(torch.arange(4)).all(1)]
    assert len(order) == 24
    images = pictures(24, 16)
    g = torch.Generator().manual_seed(2)
    factors = 0.6 + 0.8 * torch.rand(24, 3, generator=g)
    shift = 0.2 * torch.rand(24, generator=g) - 0.1
    ours = ops.colour_jitter(images, factors, shift, order)
    adjust = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for i, mine in enumerate(ours):
        x, values = images[i], [*factors[i].tolist(), shift[i].item()]
        for step in order[i].tolist():
            x = adjust[step](x, values[step])
        torch.testing.assert_close(mine, x, atol=2e-5, rtol=0)
    assert (ours[0] - ops.colour_jitter(images[:1], factors[:1], shift[:1], order[-1:])[0]).abs().max() > 0.01


def test_jitter_at_rest_changes_nothing():
    images = pictures()
    same = ops.colour_jitter(
        images, torch.ones(B, 3), torch.zeros(B), torch.arange(4).expand(B, 4).contiguous()
    )
    assert torch.equal(same, images)


@pytest.mark.parametrize("shape", [(24, 24), (7, 40)])
def test_blur_is_torchvisions(shape):
    images = torch.rand(B, 3, *shape, generator=torch.Generator().manual_seed(3))
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0])
    theirs = each(lambda x, s: tv.gaussian_blur(x, [13, 13], [s, s]), images, sigma)
    torch.testing.assert_close(ops.gaussian_blur(images, sigma), theirs, atol=1e-5, rtol=0)


def test_blur_is_close_to_pils():
    # PIL approximates the Gaussian by box filters and extends the border: smooth picture, inside.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([x / 64, y / 64, 0.5 + 0.4 * torch.sin(x / 3) * torch.cos(y / 4)])
    byte = (image * 255).round().to(torch.uint8)
    theirs = ops.from_pil(ops.to_pil(byte).filter(ImageFilter.GaussianBlur(1.7)))
    ours = ops.gaussian_blur(byte[None] / 255, torch.tensor([1.7]))[0] * 255
    assert (ours - theirs)[:, 8:-8, 8:-8].abs().max() < 3


def test_solarise_is_pils_on_every_value():
    byte = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    theirs = ops.from_pil(ImageOps.solarize(ops.to_pil(byte), threshold=128))
    both = ops.solarise(byte.expand(2, 3, 16, 16) / 255, torch.tensor([True, False])) * 255
    assert torch.equal(both[0].round().to(torch.uint8), theirs)
    assert torch.equal(both[1].round().to(torch.uint8), byte)


def test_luma_is_pils():
    byte = (pictures(1)[0] * 255).to(torch.uint8)
    theirs = ops.from_pil(ops.to_pil(byte).convert("L"))
    assert (ops.luma(byte[None].float())[0] - theirs).abs().max() <= 0.51


@pytest.mark.usefixtures("torchvision_luma")
@pytest.mark.parametrize("which", ["brightness", "contrast", "saturation"])
def test_linear_colour_is_torchvisions_where_nothing_is_clamped(which):
    images = 0.4 + 0.2 * pictures()
    values = {name: torch.ones(B) for name in ("brightness", "contrast", "saturation")}
    values[which] = torch.tensor([0.0, 0.6, 0.9, 1.0, 1.2, 1.4])
    ours = ops.linear_colour(images, **values, hue=torch.zeros(B), grey=torch.zeros(B, dtype=torch.bool))
    theirs = each(getattr(tv, f"adjust_{which}"), images, values[which])
    # torchvision's luma weights sum to 0.9999; the matrix for YIQ has its own.
    torch.testing.assert_close(ours, theirs, atol=3e-4, rtol=0)


def test_linear_colour_turns_hue_at_constant_luma_and_makes_grey():
    images, one = 0.4 + 0.2 * pictures(), torch.ones(B)
    hue = torch.linspace(-0.5, 0.5, B)
    turned = ops.linear_colour(images, one, one, one, hue, torch.zeros(B, dtype=torch.bool))
    torch.testing.assert_close(ops.luma(turned), ops.luma(images), atol=1e-4, rtol=0)
    ends = ops.linear_colour(
        images[:1].expand(2, -1, -1, -1), one[:2], one[:2], one[:2], hue[[0, -1]], one[:2] == 0
    )
    torch.testing.assert_close(ends[0], ends[1], atol=1e-4, rtol=0)
    assert (turned[0] - images[0]).abs().max() > 0.05
    grey = ops.linear_colour(images, one, one, one, hue, torch.ones(B, dtype=torch.bool))
    torch.testing.assert_close(grey, ops.luma(images).expand_as(images), atol=1e-4, rtol=0)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (encode(RGB), RGB),
        (np.asarray(RGB), RGB),
        (encode(RGB, "JPEG"), Image.open(io.BytesIO(encode(RGB, "JPEG")))),
        (encode(RGB.convert("RGBA")), RGB),
        (encode(RGB.convert("L")), RGB.convert("L").convert("RGB")),
        (np.asarray(RGB.convert("L"))[..., None], RGB.convert("L").convert("RGB")),
        (encode(RGB.convert("P")), RGB.convert("P").convert("RGB")),
        (encode(RGB.convert("P"), transparency=bytes(range(256))), RGB.convert("P").convert("RGB")),
        (encode(RGB.convert("CMYK"), "TIFF"), RGB.convert("CMYK").convert("RGB")),
        (
            encode(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257)),
            RGB.convert("L").convert("RGB"),
        ),
    ],
)
def test_decode_rgb(raw, expected):
    decoded = ops.decode_rgb(raw)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    assert torch.equal(ops.from_pil(ops.to_pil(decoded)), decoded)


def test_decoding_never_warns_but_bad_bytes_raise_one_line(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # a picture of 54 makes PIL warn
    assert ops.decode_rgb(encode(RGB)).shape == (3, 6, 9)
    warnings.simplefilter("error")
    jpeg = encode(RGB.resize((90, 60)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    png = bytearray(encode(RGB))
    png[60:70] = b"x" * 10
    for bad in (b"", b"not a picture", jpeg[: len(jpeg) // 2], bytes(png)):
        with pytest.raises(ValueError, match=r"^cannot decode the picture: [^\n]+$"):
            ops.decode_rgb(bad)
    assert math.prod(ops.decode_grey(encode(RGB)).shape) == 54
