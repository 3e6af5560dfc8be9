"""What is tried before a run begins: the augmentation set on some records, the encoder on the first batch."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.draws import uniforms
from bt_multimodal.evaluation.features import evaluating
from bt_multimodal.training.pretraining import Pretraining
from bt_multimodal.twins import check_representation
from bt_multimodal.views import Views, draw_views, finish_views

_TRIED = 4  # records


def check_first_batch(model: Pretraining, augmentations: AugmentationSet, batch: Views) -> None:
    """Run a batch through the encoder, so that a misfit is found before a run begins.

    Weights, buffers, modes and random state are left as they were.

    Raises:
        ValueError: the encoder fails on a view, or gives something other than ``[B, features_dim]``.
    """
    encoder = model.twins.encoder
    try:
        with evaluating(encoder), torch.random.fork_rng():
            view = finish_views(augmentations, batch).first
            representation = encoder(view)
    except (RuntimeError, TypeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{type(encoder).__name__} does not take these views: {reason}") from error
    check_representation(encoder, representation)


def check_augmentations(augmentations: AugmentationSet, records: DecodedRecords) -> None:
    """Make the views of the first intact records, stage by stage, to find a fault before a run begins.

    State that the set keeps (`nn.Module` extra state) is left as it was.

    Raises:
        ValueError: which stage failed, and why.
    """
    decoded, _ = records.batch(torch.arange(min(_TRIED, len(records))))
    name, kept = type(augmentations).__name__, _state(augmentations)
    index = torch.arange(len(decoded))
    try:
        u = uniforms(0, 0, index, 0, augmentations.draws)
        parameters = _stage(
            f"{name}.draw(u [{len(index)}, {augmentations.draws}], 0)", augmentations.draw, u, 0
        )
        _check_parameters(name, parameters, len(index))
        batch = _stage(
            f"{name}, in the worker's stage,", draw_views,
            augmentations, decoded, torch.full((len(index),), -1), 0, 0, index,
        )  # fmt: skip
        _stage(f"{name}, in the device's stage,", finish_views, augmentations, batch)
        clean = [_stage(f"{name}.clean", augmentations.clean, record) for record in decoded]
        data = _stage(f"{name}.collate", augmentations.collate, clean)
        _stage(f"{name}.clean_batch", augmentations.clean_batch, data)
    finally:
        if kept is not None:
            augmentations.load_state_dict(kept)


def _state(augmentations: Any) -> dict[str, Any] | None:
    if not isinstance(augmentations, nn.Module):
        return None
    return copy.deepcopy(dict(augmentations.state_dict()))


def _stage(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ValueError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        hint = "; does it need more random numbers than draws says?" if isinstance(error, IndexError) else ""
        raise ValueError(f"{what} fails: {type(error).__name__}: {text}{hint}") from error


def _check_parameters(name: str, parameters: Any, batch: int) -> None:
    if not isinstance(parameters, dict):
        raise ValueError(f"{name}.draw returns a dict of tensors by name, not a {type(parameters).__name__}")
    for key, value in parameters.items():
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != batch:
            shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{name}.draw: the first axis of {key!r} must be the {batch} samples, got {shape}"
            )
