"""Training a classifier on an encoder with labelled views: only the head, or both.

The evaluations of Zbontar et al., 2021, sections 3.1 to 3.3: linear (frozen encoder), semi-supervised
(both trained, few labels) and transfer (frozen encoder, another data set).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.training.place import reached
from bt_multimodal.training.restored import fitting
from bt_multimodal.twins import check_encoder
from bt_multimodal.views import LabelledView, finish_view


class Classifier(nn.Module):
    """An encoder and a linear head; takes a view and returns logits ``[B, K]``.

    The head is initialised as in the reference code: weights with standard deviation 0.01, zero bias.

    Args:
        encoder: takes a view, returns ``[B, features_dim]``.
        classes: the number of classes, ``K``.
        frozen: whether the encoder is not trained and stays in evaluation mode.
    """

    def __init__(self, encoder: nn.Module, classes: int, frozen: bool = True):
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.head = nn.Linear(check_encoder(encoder), classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        if frozen:
            encoder.requires_grad_(False)
        self.train()  # a loaded encoder is in evaluation mode, and Lightning does not change modes

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, view: Any) -> Tensor:
        return self.head(self.encoder(view))


def top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether each label ``[B]`` is among the ``k`` largest of ``logits [B, K]``: ``[B]`` bool."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)


def decay(epochs: int, milestones: Sequence[int], gamma: float) -> Callable[[int], float]:
    """The learning rate's factor as a function of the epoch (from 0).

    Args:
        epochs: the number of epochs of the run.
        milestones: epochs after which the factor is multiplied by ``gamma``; empty for half a cosine to 0.
        gamma: the multiplier.

    Raises:
        ValueError: a milestone that is not above 0.
    """
    if milestones:
        passed = reached(milestones, epochs, "epochs")
        return lambda epoch: gamma ** sum(epoch >= milestone for milestone in passed)
    return lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / epochs))


class Classification(pl.LightningModule):
    """Trains a classifier by SGD with momentum 0.9.

    Args:
        augmentations: the augmentation set; its first view is used for training, ``clean`` for testing.
        encoder: see `Classifier`.
        classes: the class names.
        head_lr: learning rate of the head, per 256 samples.
        encoder_lr: learning rate of the encoder, per 256 samples; 0 freezes it.
        weight_decay: L2 decay of both.
        milestones, gamma: see `decay`.

    Raises:
        ValueError: a number that is out of range.
    """

    def __init__(
        self,
        augmentations: AugmentationSet,
        encoder: nn.Module,
        classes: Sequence[str],
        head_lr: float = 0.3,
        encoder_lr: float = 0.0,
        weight_decay: float = 1e-6,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
    ):
        super().__init__()
        if min(head_lr, encoder_lr, weight_decay, gamma) < 0 or head_lr == 0:
            raise ValueError(
                f"needs head_lr > 0, encoder_lr >= 0, weight_decay >= 0, gamma >= 0; "
                f"got {head_lr=}, {encoder_lr=}, {weight_decay=}, {gamma=}"
            )
        self.classifier = Classifier(encoder, len(classes), frozen=encoder_lr == 0)
        self._augmentations = augmentations
        self._rates = (head_lr, encoder_lr)
        self._weight_decay, self._milestones, self._gamma = weight_decay, milestones, gamma
        self._correct: list[Tensor] = []

    def training_step(self, batch: LabelledView, batch_idx: int) -> Tensor:
        logits = self.classifier(finish_view(self._augmentations, batch.view))
        return F.cross_entropy(logits, batch.label)

    def on_validation_epoch_start(self) -> None:
        self._correct = []

    def validation_step(self, batch: LabelledView, batch_idx: int) -> None:
        logits = self.classifier(self._augmentations.clean_batch(batch.view))
        self._correct.append(torch.stack([top_k(logits, batch.label, k) for k in (1, 5)], dim=1))

    def accuracies(self) -> tuple[float, float, int]:
        """Top-1 and top-5 accuracy in per cent of the last validation, and its number of samples."""
        correct = torch.cat(self._correct).double()
        counts = torch.cat([correct.sum(0), correct.new_tensor([len(correct)])])
        counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        top_1, top_5, n = counts.tolist()
        return 100 * top_1 / n, 100 * top_5 / n, int(n)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = fitting(self, checkpoint["state_dict"])

    def configure_optimizers(self) -> Any:
        scale = self.trainer.datamodule.batch_size / 256  # type: ignore[attr-defined]
        modules = (self.classifier.head, self.classifier.encoder)
        groups = [
            {"params": list(module.parameters()), "lr": rate * scale}
            for module, rate in zip(modules, self._rates, strict=True)
            if rate > 0
        ]
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=self._weight_decay)
        factor = decay(self.trainer.max_epochs or 1, self._milestones, self._gamma)
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, factor)}
