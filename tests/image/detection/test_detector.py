"""A detector on a ResNet's stages: whose weights, what shapes, what it is trained on."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from encoders.image.detection.annotations import Picture
from encoders.image.detection.data import resized, target
from encoders.image.detection.detector import RegionPool, build_detector
from encoders.image.detection.training import rate
from encoders.image.encoders import ConvNet, TorchvisionEncoder


def picture(*objects, **fields):
    """A picture of 100 x 100 whose objects are (label, x1, y1, x2, y2)."""
    rows = torch.tensor(objects, dtype=torch.float32)
    ignore = torch.zeros(len(rows), dtype=torch.bool)
    return Picture(Path("a.jpg"), (100, 100), rows[:, 1:], rows[:, 0].long(), ignore, **fields)


def small(masks=False, **options):
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18", **options).eval()  # as it is when it was loaded
    numbers = {"rois": 8, "side": 6, "proposals": (20, 10), "candidates": (40, 20), "score_threshold": 0.0}
    return encoder, build_detector(encoder, 2, masks, (16, 32), **numbers)


def sample():
    torch.manual_seed(1)
    pictures = [torch.randint(0, 256, size, dtype=torch.uint8) for size in ((3, 64, 48), (3, 40, 64))]
    masks = torch.zeros(2, 40, 64, dtype=torch.uint8)
    masks[0, 5:25, 5:25] = masks[1, 10:30, 30:60] = 1
    targets = [
        {"boxes": torch.tensor([[4.0, 4, 30, 40]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[5.0, 5, 25, 25], [30, 10, 60, 30]]), "labels": torch.tensor([2, 1])},
    ]
    targets[0]["masks"] = torch.ones(1, 64, 48, dtype=torch.uint8)
    targets[1]["masks"] = masks
    return pictures, targets


def test_its_weights_are_the_encoders():
    encoder, detector = small(masks=True)
    stages = dict(detector.backbone.named_parameters())
    mine = dict(encoder.module.named_parameters())
    fifth = dict(detector.roi_heads.box_head[0].layer4.named_parameters())
    assert all(module.training for module in detector.modules())
    assert len(mine) == len(stages) + len(fifth)  # each of the encoder's, and no other
    for name, parameter in mine.items():
        part = fifth[name.removeprefix("layer4.")] if name.startswith("layer4.") else stages[name]
        assert part is parameter, name
    # The masks are predicted from the very stage that the boxes are.
    assert detector.roi_heads.mask_head is detector.roi_heads.box_head[0]
    assert isinstance(detector.roi_heads.mask_head.norm, nn.BatchNorm2d)


@pytest.mark.parametrize(("options", "stride"), [({}, 16), ({"small_stem": True}, 4)])
def test_losses_reach_every_weight_and_detections_have_shapes(options, stride):
    _, detector = small(masks=True, **options)
    assert detector.roi_heads.box_roi_pool.stride == stride
    pictures, targets = sample()
    losses = detector(pictures, targets)
    assert {*losses} == {
        "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    detector.eval()
    with torch.no_grad():
        found = detector(pictures, sizes=[(128, 96), (20, 32)])
        same = detector(pictures)
    for one, own, (rows, columns) in zip(found, same, ((128, 96), (20, 32)), strict=True):
        assert 0 < len(one["boxes"]) == len(one["scores"]) == len(one["labels"])
        assert one["masks"].shape == (len(one["boxes"]), 1, rows, columns)
        assert {*one["labels"].tolist()} <= {1, 2}
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([columns, rows]).repeat(2) + 1e-4).all()
        half = 2.0 if rows == 128 else 0.5
        torch.testing.assert_close(one["boxes"], own["boxes"] * half)


def test_masks_of_another_scale_are_the_same_targets():
    """The mask loss of masks in their own resolution is that of masks as large as the picture."""
    pictures, targets = sample()
    losses = []
    for scale in (1, 4):
        _, detector = small(masks=True)
        logits = detector.roi_heads.mask_predictor.mask_fcn_logits
        nn.init.zeros_(logits.weight)
        nn.init.constant_(logits.bias, 3.0)  # sure of every pixel, so the loss counts those outside
        scaled = [
            {**one, "masks": one["masks"].repeat_interleave(scale, 1).repeat_interleave(scale, 2)}
            for one in targets
        ]
        torch.manual_seed(0)
        losses.append(detector(pictures, scaled)["loss_mask"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0] < 1


@pytest.mark.slow
def test_it_learns_a_picture_by_heart():
    _, detector = small(masks=True)
    picture = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 20:44, 12:36] = 1
    mask[0, 20:32, 12:24] = 0  # a corner is missing
    picture[0][mask[0].bool()], picture[2][mask[0].bool()] = 250, 0
    targets = [{"boxes": torch.tensor([[12.0, 20, 36, 44]]), "labels": torch.tensor([2]), "masks": mask}]
    optimizer = torch.optim.Adam(detector.parameters(), 5e-4)
    for _ in range(60):
        optimizer.zero_grad()
        sum(detector([picture] * 2, targets * 2).values()).backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = detector.eval()([picture])
    best = found["masks"][0, 0] >= 0.5
    assert found["labels"][0] == 2
    assert box_iou(found["boxes"][:1], targets[0]["boxes"]) > 0.6
    both, either = (best & mask[0].bool()).sum(), (best | mask[0].bool()).sum()
    assert both / either > 0.6
    assert not best[20:28, 12:20].float().mean() > 0.5


def test_the_fifth_stage_runs_once_a_training_step():
    _, detector = small(masks=True)
    before = int(detector.roi_heads.mask_head.norm.num_batches_tracked)
    detector(*sample())
    assert int(detector.roi_heads.mask_head.norm.num_batches_tracked) == before + 1


def test_a_picture_without_anything_found():
    _, detector = small(masks=True)
    detector.roi_heads.score_thresh = 2.0
    with torch.no_grad():
        (found,) = detector.eval()([torch.zeros(3, 32, 32, dtype=torch.uint8)])
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 1, 32, 32)


def test_regions_are_pooled_where_they_are():
    # A map that holds its own column: the middle of a region, in steps of 4 pixels. Step k lies at 4 k + 2.
    columns = torch.arange(20.0).expand(1, 1, 20, 20)
    pooled = RegionPool(2, 4)({"0": columns}, [torch.tensor([[8.0, 8, 40, 40]])], None)
    assert pooled[0, 0, 0].tolist() == pytest.approx([16 / 4 - 0.5, 32 / 4 - 0.5])


def test_only_a_resnet_will_do():
    other = TorchvisionEncoder("mobilenet_v3_small")
    for encoder, kind in ((ConvNet([8]), "ConvNet"), (other, "mobilenet_v3_small")):
        with pytest.raises(ValueError, match=f"built on a ResNet of torchvision, not on {kind}"):
            build_detector(encoder, 2)
    with pytest.raises(ValueError, match="needs classes and anchor sizes"):
        build_detector(TorchvisionEncoder("resnet18"), 0)


def test_targets_go_with_the_picture():
    own = picture((1, 10, 20, 60, 120), (2, 100, 0, 105, 9))
    # To half the width and twice the height; what reaches out is cut, what is outside is left out.
    made = target(own, 200, 50, flip=False, with_masks=False)
    assert made["boxes"].tolist() == [[5, 40, 30, 200]]
    assert made["labels"].tolist() == [1]
    flipped = target(own, 200, 50, flip=True, with_masks=False)
    assert flipped["boxes"].tolist() == [[20, 40, 45, 200]]
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    one = picture((1, 0, 0, 10, 10), segments=[square])
    masks = target(one, 50, 50, flip=True, with_masks=True)["masks"]
    assert masks.shape == (1, 100, 100)
    assert masks[0].sum() == masks[0, :10, 90:].sum() == 100


def test_sizes():
    assert resized(torch.zeros(3, 50, 100, dtype=torch.uint8), 80, 1333).shape == (3, 80, 160)
    assert resized(torch.zeros(3, 50, 100, dtype=torch.uint8), 80, 120).shape == (3, 60, 120)


def test_the_rate():
    factor = rate(24000, (18000, 22000), 1000, 0.333)
    assert [factor(step) for step in (0, 500, 1000, 17999, 18000, 22000)] == pytest.approx(
        [0.333, 0.6665, 1, 1, 0.1, 0.01]
    )
    assert rate(2, (), 0, 0.5)(0) == 1
    with pytest.warns(UserWarning, match=r"the run ends after 5 steps, before the milestones \[5\]"):
        assert rate(5, (5,), 0, 1)(4) == 1
    with pytest.raises(ValueError, match="max_steps"):
        rate(-1, (), 0, 1)
