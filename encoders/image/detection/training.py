"""Lightning modules that fine-tune a detector."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from bt_multimodal.compat import BatchNorm
from bt_multimodal.data.batches import check_batch_size, training_loader
from bt_multimodal.data.loader_processes import Loader
from bt_multimodal.errors import TrainingFailedError
from bt_multimodal.training.place import place, reached
from bt_multimodal.training.restored import fitting
from encoders.image.detection.annotations import open_annotated
from encoders.image.detection.data import EvaluationPictures, Pictures, TrainPictures, run_length
from encoders.image.detection.detector import build_detector
from encoders.image.detection.metrics import Detections, coco_ap, voc_ap


class DetectionData(pl.LightningDataModule):
    """The training and test pictures of one source, with boxes.

    Args:
        seed: the run's seed.
        source: a VOC devkit or a COCO folder; see `open_annotated`.
        batch_size: global batch size, over all ranks.
        train_split, test_split: names of the splits; see `open_annotated`.
        masks: load masks (COCO).
        sizes: sizes of the shorter side in training in pixels, all equally likely.
        test_size: size of the shorter side in testing in pixels.
        longest: limit of the longer side in pixels.
        num_workers: number of loader processes.

    Raises:
        DataError: if the data does not exist, or the batch size does not fit it.
        ValueError: if a size is not positive, or ``masks`` is set and an annotation has none.
    """

    def __init__(
        self,
        seed: int,
        source: str,
        batch_size: int = 16,
        train_split: str = "trainval",
        test_split: str = "test",
        masks: bool = False,
        sizes: Sequence[int] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        test_size: int = 800,
        longest: int = 1333,
        num_workers: int = 0,
    ):
        super().__init__()
        if not sizes or min(*sizes, test_size, longest) < 1:
            raise ValueError(
                f"sizes {[*sizes]}, test_size {test_size} and longest {longest} must be 1 pixel or more"
            )
        train, self.test = open_annotated(source, train_split, test_split)
        self.classes, self.train = train.classes, train.to_train_on()
        check_batch_size(batch_size, len(self.train))  # before long work
        if masks:
            for picture in (*self.train, *self.test.pictures):
                if picture.segments is None:
                    raise ValueError(
                        f"masks are requested, but the annotation of {picture.path} has only boxes"
                    )
        self.masks, self.seed, self.batch_size, self.num_workers = masks, seed, batch_size, num_workers
        self._sizes, self._test_size, self._longest = sizes, test_size, longest

    def train_dataloader(self) -> DataLoader:
        dataset = TrainPictures(self.train, self._sizes, self._longest, self.seed, self.masks)
        rank, world, start = place(self.trainer, len(dataset) // self.batch_size)
        pin_memory = torch.cuda.is_available()
        return training_loader(dataset, self.batch_size, rank, world, self.num_workers, pin_memory, start)

    def test_dataloader(self) -> DataLoader:
        rank, world, _ = place(self.trainer, 1)
        batch_size = max(1, self.batch_size // world)
        pictures = self.test.pictures
        dataset = EvaluationPictures(pictures, self._test_size, self._longest, batch_size, rank, world)
        return Loader(dataset, self.num_workers, batch_size=None)


def rate(
    steps: int, milestones: Sequence[int], warmup_steps: int, warmup_factor: float
) -> Callable[[int], float]:
    """Returns the learning rate's factor as a function of the step (from 0).

    It rises linearly from ``warmup_factor`` to 1 over the first ``warmup_steps`` and is divided by ten at
    each milestone.

    Raises:
        ValueError: if the number of steps is missing, or a milestone is not above 0.
    """
    if steps < 1:
        raise ValueError("trainer.max_steps is missing: set how many steps the detector is trained for")
    passed = reached(milestones, steps, "steps")

    def factor(step: int) -> float:
        progress = min(1.0, step / warmup_steps) if warmup_steps else 1.0
        warmup = warmup_factor + (1 - warmup_factor) * progress
        return warmup * 0.1 ** sum(step >= milestone for milestone in passed)

    return factor


class Detection(pl.LightningModule):
    """Trains a detector by SGD with momentum 0.9 and detects objects in the test pictures.

    Args:
        encoder: the encoder that the detector starts from.
        data: the training and test data.
        lr: learning rate of all parameters.
        weight_decay: weight decay of all parameters but BatchNorm's.
        milestones: steps at which the learning rate is divided by ten.
        warmup_steps, warmup_factor: see `rate`.
        eleven_point: VOC's measure until 2009; see `voc_ap`.
        anchor_sizes, rois, side, proposals, candidates, score_threshold, detections: see `build_detector`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        data: DetectionData,
        lr: float = 0.02,
        weight_decay: float = 1e-4,
        milestones: Sequence[int] = (),
        warmup_steps: int = 1000,
        warmup_factor: float = 0.001,
        eleven_point: bool = False,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        rois: int = 512,
        side: int = 14,
        proposals: tuple[int, int] = (2000, 1000),
        candidates: tuple[int, int] = (12000, 6000),
        score_threshold: float = 0.05,
        detections: int = 100,
    ):
        super().__init__()
        self.detector = build_detector(
            encoder, len(data.classes), data.masks, anchor_sizes, rois, side, proposals, candidates,
            score_threshold, detections,
        )  # fmt: skip
        self._data, self._lr, self._weight_decay = data, lr, weight_decay
        self._warmup, self._milestones = (warmup_steps, warmup_factor), milestones
        self._eleven_point = eleven_point
        self._detections: dict[int, Detections] = {}

    def schedule(self, steps: int) -> Callable[[int], float]:
        """Returns `rate` for a run of ``steps`` steps."""
        return rate(steps, self._milestones, *self._warmup)

    def training_step(self, batch: Pictures, batch_idx: int) -> Tensor:
        # The sampling of anchors and regions depends on the step alone, so resuming needs no random state.
        torch.manual_seed(self._data.seed * 1_000_003 + self.global_step)
        losses = self.detector(batch.pictures, batch.targets)
        loss = sum(losses.values())
        if self.global_step % 20 == 0 and not loss.isfinite():
            raise TrainingFailedError(f"the loss is {loss.item()} at step {self.global_step}; lower model.lr")
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.pictures))
        return loss

    def on_test_epoch_start(self) -> None:
        self._detections = {}

    def test_step(self, batch: Pictures, batch_idx: int) -> None:
        outputs = self.detector(batch.pictures, sizes=batch.sizes)
        for i, output in zip(batch.indices, outputs, strict=True):
            masks = [run_length(m[0] >= 0.5) for m in output["masks"]] if "masks" in output else None
            boxes, scores, labels = (output[key].cpu() for key in ("boxes", "scores", "labels"))
            self._detections[i] = Detections(boxes, scores, labels, masks)

    def on_test_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self._detections)
            self._detections = {i: detections for part in parts for i, detections in part.items()}

    def detections(self) -> dict[int, Detections]:
        """Returns the detections of the last test by picture index; damaged pictures have none."""
        return dict(sorted(self._detections.items()))

    def figures(self) -> dict[str, float]:
        """Returns the average precisions of the last test in per cent, by the rules of the data's format."""
        detections = self.detections()
        pictures = [self._data.test.pictures[i] for i in detections]
        if self._data.test.voc:
            return voc_ap(pictures, [*detections.values()], self._eleven_point)
        return coco_ap(pictures, [*detections.values()], self._data.masks)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = fitting(self, checkpoint["state_dict"])

    def configure_optimizers(self) -> Any:
        norms = [module for module in self.modules() if isinstance(module, BatchNorm)]
        of_norms = {p for module in norms for p in module.parameters()}
        decayed = [p for p in self.parameters() if p not in of_norms]
        not_decayed = [p for p in self.parameters() if p in of_norms]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": not_decayed, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, self._lr, momentum=0.9, weight_decay=self._weight_decay)
        scheduler = LambdaLR(optimizer, self.schedule(self.trainer.max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
