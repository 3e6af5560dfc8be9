"""Twins as a LightningModule, kept thin: a bare loop over the same parts gives the same weights."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.loss import BarlowTwinsLoss
from bt_multimodal.optim import LARS, parameter_groups, schedule
from bt_multimodal.projector import Projector
from bt_multimodal.training.place import epoch_length, run_length
from bt_multimodal.training.pretraining_data import PretrainingData
from bt_multimodal.training.restored import fitting
from bt_multimodal.twins import BarlowTwins, check_encoder
from bt_multimodal.views import Views, finish_views


class Pretraining(pl.LightningModule):
    """Self-supervised training of an encoder.

    Args:
        augmentations: the augmentation set; batches of finished views need none of it.
        encoder: takes a view, gives ``[B, features_dim]``.
        projector: widths of its layers after the representation, or a module.
        loss: two embeddings to `LossTerms`; `bt_multimodal.loss_variants` has others.
        optimizer: on two parameter groups (`parameter_groups`); its ``lr`` is per 256 samples.
        bias_lr_ratio: learning rate of biases and normalisation as a share of the weights'.
        warmup_epochs: linear warm-up, then cosine to 1/1000, per step.
        lr_by_batch: the weights' learning rate (per 256 samples) for each global batch size, instead of the
            optimizer's; biases and normalisation keep theirs.
        projector_batch_norm: whether the projector's hidden layers have BatchNorm.
        predictor: two layers as wide as the embedding on the first view's (the paper's table 6).
        stop_gradient: no gradient through the second view (the same table).
        accumulate: micro-batches that a rank's batch goes through the network in, for batches whose
            activations do not fit memory; the loss stays that of the whole batch (`BarlowTwins`).
    """

    def __init__(
        self,
        augmentations: AugmentationSet,
        encoder: nn.Module,
        projector: list[int] | nn.Module,
        loss: BarlowTwinsLoss | nn.Module,
        optimizer: Callable[[Iterable], Optimizer] = LARS,
        bias_lr_ratio: float = 0.024,
        warmup_epochs: float = 10,
        lr_by_batch: dict[int, float] | None = None,
        projector_batch_norm: bool = True,
        predictor: bool = False,
        stop_gradient: bool = False,
        accumulate: int = 1,
    ):
        super().__init__()
        if bias_lr_ratio < 0:
            raise ValueError(f"bias_lr_ratio is a share of the learning rate, 0 or more, not {bias_lr_ratio}")
        if not isinstance(projector, nn.Module):
            projector = Projector([check_encoder(encoder), *projector], projector_batch_norm)
        second_head = Projector([projector.out_features] * 3) if predictor else None  # type: ignore[list-item]
        self.twins = BarlowTwins(
            encoder, projector, loss,
            predictor=second_head, stop_gradient=stop_gradient, accumulate=accumulate,
        )  # fmt: skip
        self.train()  # Lightning keeps modes as they are, and what libraries load is in evaluation mode
        self._augmentations = augmentations
        self._optimizer, self._bias_lr_ratio = optimizer, bias_lr_ratio
        self._warmup_epochs, self._lr_by_batch = warmup_epochs, lr_by_batch
        self._prepared: tuple[Optimizer, LRScheduler] | None = None

    def training_step(self, batch: Views, batch_idx: int) -> dict[str, Tensor]:
        batch = finish_views(self._augmentations, batch)
        terms = self.twins(batch.first, batch.second)
        return {
            "loss": terms.total,
            "invariance": terms.invariance.detach(),
            "redundancy": terms.redundancy.detach(),
        }

    def warmup_steps(self, steps: int, total: int) -> int:
        """The steps of the warm-up in a run of ``total`` steps, of which an epoch has ``steps``.

        A warm-up that is not shorter than the run is shortened to a tenth of it, with a warning.
        """
        warmup = round(self._warmup_epochs * steps)
        if warmup < total or not warmup:
            return warmup
        shorter = total // 10
        warnings.warn(
            f"the warm-up of {self._warmup_epochs:g} epochs is not shorter than the run of "
            f"{total / steps:g}: it is shortened to a tenth of the run, {shorter} of {total} steps",
            stacklevel=2,
        )
        return shorter

    def build_optimizer(self, batch_size: int) -> Optimizer:
        """The optimizer on its parameter groups.

        Raises:
            ValueError: a global batch that ``lr_by_batch`` does not have, or a layer with sparse gradients.
        """
        optimizer = self._optimizer(parameter_groups(self.twins, self._bias_lr_ratio))
        tables = (nn.Embedding, nn.EmbeddingBag)
        sparse = [
            name for name, part in self.twins.named_modules() if isinstance(part, tables) and part.sparse
        ]
        if sparse and not isinstance(optimizer, LARS):
            raise ValueError(
                f"{sparse[0]} has sparse gradients, which {type(optimizer).__name__} does not take with the "
                "dense ones of other layers: set sparse=False in it, or take bt_multimodal.optim.LARS"
            )
        if self._lr_by_batch:
            if batch_size not in self._lr_by_batch:
                known = ", ".join(map(str, self._lr_by_batch))
                raise ValueError(
                    f"lr_by_batch has no learning rate for batch_size {batch_size}, only for {known}; "
                    "choose one of them, or give optimizer.lr and lr_by_batch null"
                )
            weights = optimizer.param_groups[0]
            weights["lr_ratio"] = self._lr_by_batch[batch_size] / weights["lr"]
        return optimizer

    def prepare(self, batch_size: int, steps: int, total: int) -> None:
        """Build the optimizer and its schedule now, so that settings that do not fit are found before a run.

        Args:
            batch_size: the global batch.
            steps: steps of an epoch.
            total: steps of the run (`training.place.run_length`).

        Raises:
            ValueError: as `build_optimizer`, a warm-up below 0, or more micro-batches than samples.
        """
        if self.twins.accumulate > batch_size:
            raise ValueError(f"accumulate {self.twins.accumulate} is above the batch of {batch_size} samples")
        optimizer = self.build_optimizer(batch_size)
        warmup = self.warmup_steps(steps, total)
        self._prepared = optimizer, schedule(optimizer, batch_size, warmup, total)

    def configure_optimizers(self) -> Any:
        if self._prepared is None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            steps, total = data.samples.steps, run_length(self.trainer, data.samples.steps)
            self.prepare(data.batch_size, epoch_length(self.trainer, steps), total)
        assert self._prepared is not None
        optimizer, scheduler = self._prepared
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, PretrainingData) and PretrainingData.__qualname__ not in checkpoint:
            data.check_former()
        checkpoint["state_dict"] = fitting(self, checkpoint["state_dict"])
