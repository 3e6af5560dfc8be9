"""Faster and Mask R-CNN on a pretrained ResNet, in the variant that detectron2 calls C4.

The detector follows Zbontar et al., 2021, section 3.3 and appendix C.2, and with them He et al., "Momentum
contrast for unsupervised visual representation learning", 2020, appendix. The stages up to the fourth
(torchvision's ``layer3``) process the picture; the fifth (``layer4``) and a BatchNorm process each region.
Nothing is frozen. The components are torchvision's.

Differences from detectron2: box losses are smooth L1 with ``beta`` 1/9 (there: plain L1); anchors are rounded
to whole pixels; mask targets are pooled from bitmaps (there: drawn from polygons); batches are not grouped by
aspect ratio; BatchNorm tests with its running statistics (there: with statistics measured again, "precise
BN").

Legend: ``B`` pictures, ``K`` classes without background, ``M`` detections, ``h, w`` size of a picture in the
network, ``H, W`` original size.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import roi_align

from encoders.image.encoders import TorchvisionEncoder
from encoders.image.views import IMAGENET_MEAN, IMAGENET_STD

_DIVISIBLE = 32


class RegionPool(nn.Module):
    """Pools regions of one feature map to ``[regions, channels, side, side]``, as detectron2's ROIAlignV2.

    torchvision's `MultiScaleRoIAlign` has no option ``aligned``: its regions are half a pixel off.

    Args:
        side: side of the pooled regions.
        stride: pixels of the picture per pixel of the feature map.
    """

    def __init__(self, side: int, stride: int):
        super().__init__()
        self.side, self.stride = side, stride

    def forward(self, features: Mapping[str, Tensor], boxes: list[Tensor], shapes: Any) -> Tensor:
        return roi_align(features["0"], boxes, self.side, 1 / self.stride, sampling_ratio=0, aligned=True)


class Detector(nn.Module):
    """A two-stage detector; see `build_detector`.

    In training it takes targets and returns losses by name. In evaluation it returns a dict per picture:
    ``boxes [M, 4]``, ``scores [M]``, ``labels [M]`` and, with masks, ``masks [M, 1, H, W]`` (probabilities).
    """

    def __init__(self, backbone: nn.Module, rpn: RegionProposalNetwork, roi_heads: RoIHeads):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        # Only normalises and pads: the data set resizes, by its own random numbers.
        self.transform = GeneralizedRCNNTransform(
            0, 0, list(IMAGENET_MEAN), list(IMAGENET_STD), size_divisible=_DIVISIBLE
        )

    def forward(
        self,
        pictures: Sequence[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Any:
        """Returns losses in training and detections in evaluation.

        Args:
            pictures: ``B`` pictures, uint8 ``[3, h, w]``.
            targets: for each picture ``boxes [N, 4]`` in its pixels, ``labels [N]`` from 1, and, with a mask
                head, ``masks [N, H, W]`` (uint8, at any scale).
            sizes: sizes ``H, W`` that the detections are scaled to, by default the pictures' sizes.
        """
        shapes = [(p.shape[-2], p.shape[-1]) for p in pictures]
        normalised = [self.transform.normalize(p.to(torch.float32) / 255) for p in pictures]
        images = ImageList(self.transform.batch_images(normalised, _DIVISIBLE), shapes)
        features = OrderedDict({"0": self.backbone(images.tensors)})
        proposals, losses = self.rpn(images, features, targets)
        if self.training:
            assert targets is not None
            return {**losses, **self._region_losses(features, proposals, shapes, targets)}
        detections, _ = self.roi_heads(features, proposals, shapes)
        return self.transform.postprocess(detections, shapes, list(sizes or shapes))

    def _region_losses(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        # RoIHeads.forward would run the fifth stage a second time for the masks, on the positive regions
        # alone, and its BatchNorm would see other statistics than in testing.
        heads = self.roi_heads
        proposals, matched, labels, regression = heads.select_training_samples(proposals, targets)
        stage, pool, flatten = heads.box_head
        regions = stage(heads.box_roi_pool(features, proposals, shapes))
        loss_classifier, loss_box = fastrcnn_loss(
            *heads.box_predictor(flatten(pool(regions))), labels, regression
        )
        losses = {"loss_classifier": loss_classifier, "loss_box_reg": loss_box}
        if heads.has_mask():
            masks = [target["masks"] for target in targets]
            positive = [picture_labels > 0 for picture_labels in labels]
            scales = [
                boxes.new_tensor([mask.shape[-1] / w, mask.shape[-2] / h]).repeat(2)
                for boxes, mask, (h, w) in zip(proposals, masks, shapes, strict=True)
            ]
            # torchvision pools the targets without ``aligned``; subtracting half a pixel has its effect.
            losses["loss_mask"] = maskrcnn_loss(
                heads.mask_predictor(regions[torch.cat(positive)]),
                [
                    boxes[keep] * scale - 0.5
                    for boxes, keep, scale in zip(proposals, positive, scales, strict=True)
                ],
                masks,
                [target["labels"] for target in targets],
                [indices[keep] for indices, keep in zip(matched, positive, strict=True)],
            )
        return losses


def build_detector(
    encoder: nn.Module,
    classes: int,
    masks: bool = False,
    anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
    rois: int = 512,
    side: int = 14,
    proposals: tuple[int, int] = (2000, 1000),
    candidates: tuple[int, int] = (12000, 6000),
    score_threshold: float = 0.05,
    detections: int = 100,
) -> Detector:
    """Builds a detector from an encoder's weights, in training mode.

    Args:
        encoder: a `TorchvisionEncoder` of a ResNet; the detector shares its modules.
        classes: number of classes ``K``.
        masks: add a mask head.
        anchor_sizes: sides of the square anchors in pixels. Each size also has anchors of aspect ratio 1:2
            and 2:1.
        rois: regions per picture that train the heads; at most a quarter of them are positive.
        side: side of a pooled region, and of a predicted mask.
        proposals: regions per picture from the proposal network, in training and in testing.
        candidates: the same before non-maximum suppression.
        score_threshold: smallest score of a detection.
        detections: most detections per picture.

    Raises:
        ValueError: if the encoder is of another class, or there are no classes or no anchors.
    """
    resnet = encoder.module if isinstance(encoder, TorchvisionEncoder) else None
    if not isinstance(resnet, ResNet):
        kind = encoder.name if isinstance(encoder, TorchvisionEncoder) else type(encoder).__name__
        raise ValueError(f"a detector is built on a ResNet of torchvision, not on {kind}")
    if classes < 1 or not anchor_sizes:
        raise ValueError(f"a detector needs classes and anchor sizes, not {classes} and {list(anchor_sizes)}")
    stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    backbone = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in stages))
    backbone.eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 64))
    width = encoder.features_dim
    assert isinstance(width, int)
    stage = nn.Sequential(OrderedDict(layer4=resnet.layer4, norm=nn.BatchNorm2d(width)))

    anchors = AnchorGenerator((tuple(anchor_sizes),), ((0.5, 1.0, 2.0),))
    rpn = RegionProposalNetwork(
        anchors,
        RPNHead(features.shape[1], anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), candidates, strict=True)),
        post_nms_top_n=dict(zip(("training", "testing"), proposals, strict=True)),
        nms_thresh=0.7,
    )
    pool = RegionPool(side, 64 // features.shape[-1])
    mask_predictor = MaskRCNNPredictor(width, 256, classes + 1) if masks else None
    heads = RoIHeads(
        pool,
        nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        FastRCNNPredictor(width, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=rois,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=score_threshold,
        nms_thresh=0.5,
        detections_per_img=detections,
        mask_roi_pool=pool if masks else None,
        mask_head=stage if masks else None,
        mask_predictor=mask_predictor,
    )
    # detectron2's initialisation; torchvision keeps PyTorch's defaults.
    layers = [(heads.box_predictor.cls_score, 0.01), (heads.box_predictor.bbox_pred, 0.001)]
    if mask_predictor is not None:
        layers.append((mask_predictor.mask_fcn_logits, 0.001))
        nn.init.zeros_(mask_predictor.conv5_mask.bias)
    for layer, std in layers:
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return Detector(backbone, rpn, heads).train()
