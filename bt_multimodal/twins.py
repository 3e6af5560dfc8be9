"""Barlow Twins: one network applied to two views of each sample, and the loss of their embeddings."""

from typing import Any

import torch
from torch import Tensor, nn

from bt_multimodal.loss import BarlowTwinsLoss, LossTerms
from bt_multimodal.micro_batches import embed_in_micro_batches


class Headless(nn.Module):
    """A network without its classification head, as an encoder.

    Args:
        module: a network that returns ``[B, features_dim]`` without its head.
        features_dim: the width of that output.
        head: dotted name of the submodule to replace by the identity (``"fc"``, ``"classifier.6"``);
            ``None`` if the network has no head.

    Raises:
        ValueError: the network has no submodule ``head``.
    """

    def __init__(self, module: nn.Module, features_dim: int, head: str | None = None):
        super().__init__()
        if head is not None:
            try:
                module.set_submodule(head, nn.Identity(), strict=True)
            except AttributeError as error:
                raise ValueError(f"{type(module).__name__} has no submodule {head!r}") from error
        self.module, self.features_dim = module, features_dim

    def forward(self, view: Any) -> Tensor:
        return self.module(view)


def check_encoder(encoder: nn.Module) -> int:
    """The encoder's ``features_dim``.

    Raises:
        ValueError: it is missing or not a positive integer; the message says what to add.
    """
    dim = getattr(encoder, "features_dim", None)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        state = "has none" if dim is None else f"has {dim!r}"
        raise ValueError(
            f"an encoder needs features_dim, the width of its output; {type(encoder).__name__} {state}: "
            "set self.features_dim = ... in its __init__, or wrap it in "
            "bt_multimodal.Headless(module, features_dim)"
        )
    return dim


def _check_projector(encoder: nn.Module, projector: nn.Module) -> None:
    dim, takes = check_encoder(encoder), getattr(projector, "in_features", None)
    if takes is not None and takes != dim:
        raise ValueError(
            f"the projector does not fit: it takes {takes} features, "
            f"{type(encoder).__name__} returns {dim} (features_dim)"
        )


class BarlowTwins(nn.Module):
    """Encoder, projector and loss on two views (Zbontar et al., 2021, algorithm 1).

    The views go through the network one after the other, never as one batch. They may therefore differ
    in length, and BatchNorm uses separate statistics for each view.

    Args:
        encoder: takes a view, returns a representation ``[B, features_dim]``, and has an attribute
            ``features_dim``.
        projector: takes a representation, returns an embedding ``[B, D]``.
        loss: takes two embeddings, returns `LossTerms`; by default `BarlowTwinsLoss`.
        second_encoder, second_projector: the network of the second view, for paired modalities (image
            and caption, audio and transcript). Both or neither.
        predictor: applied to the first embedding, ``[B, D]`` to ``[B, D]`` (the paper's table 6).
        stop_gradient: whether to detach the second embedding (the same table).
        accumulate: number of micro-batches, for batches whose activations do not fit into memory. The
            loss is exactly that of the whole batch, at the cost of a second forward pass; BatchNorm uses
            the statistics of each micro-batch (`bt_multimodal.micro_batches`).

    Raises:
        ValueError: networks that do not fit together, or ``accumulate`` below 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        loss: nn.Module | None = None,
        second_encoder: nn.Module | None = None,
        second_projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
        stop_gradient: bool = False,
        accumulate: int = 1,
    ):
        super().__init__()
        _check_projector(encoder, projector)
        if accumulate < 1:
            raise ValueError(f"accumulate must be 1 or more micro-batches, not {accumulate}")
        if (second_encoder is None) != (second_projector is None):
            raise ValueError("second_encoder and second_projector come together: set both or neither")
        if second_encoder is not None and second_projector is not None:
            _check_projector(second_encoder, second_projector)
        self.encoder, self.projector = encoder, projector
        self.second_encoder, self.second_projector = second_encoder, second_projector
        self.predictor, self.stop_gradient = predictor, stop_gradient
        self.accumulate = accumulate
        self.loss = loss if loss is not None else BarlowTwinsLoss()

    def forward(self, view_first: Any, view_second: Any) -> LossTerms:
        """The loss of a batch of two views; each is a pytree of tensors, as its encoder takes it."""
        z_first = self._embed(self.encoder, self.projector, view_first)
        if self.second_encoder is not None and self.second_projector is not None:
            z_second = self._embed(self.second_encoder, self.second_projector, view_second)
        else:
            z_second = self._embed(self.encoder, self.projector, view_second)
        if self.predictor is not None:
            z_first = self.predictor(z_first)
        return self.loss(z_first, z_second.detach() if self.stop_gradient else z_second)

    def _embed(self, encoder: nn.Module, projector: nn.Module, view: Any) -> Tensor:
        def embed(batch: Any) -> Tensor:
            representation = encoder(batch)
            check_representation(encoder, representation)
            return projector(representation)

        if self.accumulate == 1:
            return embed(view)
        return embed_in_micro_batches(embed, view, self.accumulate, self)


def check_representation(encoder: nn.Module, representation: Any) -> None:
    """Check the shape of an encoder's output.

    Raises:
        ValueError: ``representation`` is not a tensor ``[B, features_dim]``.
    """
    dim = check_encoder(encoder)
    if not isinstance(representation, torch.Tensor):
        raise ValueError(
            f"{type(encoder).__name__} must return a tensor [B, {dim}], not a {type(representation).__name__}"
        )
    if representation.ndim != 2 or representation.shape[1] != dim:
        raise ValueError(
            f"{type(encoder).__name__} says features_dim = {dim} but returned {list(representation.shape)}, "
            f"not [B, {dim}]"
        )
