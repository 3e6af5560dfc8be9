"""What is tried before a run begins: the augmentation set on some records, the encoder on the first batch."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.draws import uniforms
from bt_multimodal.errors import one_line
from bt_multimodal.evaluation.features import evaluating
from bt_multimodal.training.pretraining import Pretraining
from bt_multimodal.twins import check_representation
from bt_multimodal.views import Views, draw_view, draw_views, finish_view, finish_views

_TRIED, _LOOKED_AT = 4, 64  # records: usually, and where the first are suspicious
_BY_CHANCE = 8  # fewer views may be alike by chance


def check_first_batch(
    model: Pretraining, augmentations: AugmentationSet, batch: Views, records: DecodedRecords | None = None
) -> None:
    """Run a batch through the encoder, so that a misfit is found before a run begins.

    Weights, buffers, modes and random state are left as they were.

    Args:
        model: its encoder is tried.
        augmentations: the augmentation set.
        batch: a training batch.
        records: some of them are tried as evaluation sees them, in clean views.

    Raises:
        ValueError: the encoder fails on a view, or gives something other than ``[B, features_dim]``; or all
            views of `_BY_CHANCE` samples or more are the same, or none is finite.
    """
    encoder = model.twins.encoder
    with evaluating(encoder), torch.random.fork_rng():
        views = finish_views(augmentations, batch)
        _check_views(type(augmentations).__name__, views.first)
        _try(encoder, views.first, "these views")
        if _size(views.second) != _size(views.first):
            _try(encoder, views.second, "the second views")
        if records is not None:
            _try_clean(encoder, augmentations, records)


def check_classifier(encoder: nn.Module, augmentations: AugmentationSet, records: DecodedRecords) -> None:
    """Run the first records through an encoder as a classifier trains on them, and as it tests on them.

    Raises:
        ValueError: the encoder fails on a view, or gives something other than ``[B, features_dim]``.
    """
    index = torch.arange(min(_TRIED, len(records)))
    with evaluating(encoder), torch.random.fork_rng():
        decoded, _ = records.batch(index)
        drawn = draw_view(augmentations, decoded, 0, 0, index)
        _try(encoder, finish_view(augmentations, drawn), "these views")
        _try_clean(encoder, augmentations, records)


def _try_clean(encoder: nn.Module, augmentations: AugmentationSet, records: DecodedRecords) -> None:
    decoded, _ = records.batch(torch.arange(min(_TRIED, len(records))))
    clean = augmentations.collate([augmentations.clean(record) for record in decoded])
    _try(encoder, augmentations.clean_batch(clean), "the clean views of evaluation")


def _try(encoder: nn.Module, view: Any, what: str) -> None:
    try:
        representation = encoder(view)
    except Exception as error:  # a network's code raises errors of any type; timm asserts
        reason = str(error).strip().splitlines()[0] if str(error).strip() else one_line(error)
        raise ValueError(f"{type(encoder).__name__} does not take {what}: {reason}{_size(view)}") from error
    check_representation(encoder, representation)


def _size(view: Any) -> str:
    return f" (a batch of them is {list(view.shape)})" if isinstance(view, Tensor) else ""


def check_augmentations(augmentations: AugmentationSet, records: DecodedRecords) -> None:
    """Make the views of the first intact records, stage by stage, to find a fault before a run begins.

    State that the set keeps (`nn.Module` extra state) is left as it was.

    Raises:
        ValueError: which stage failed, and why; or the records are all constant or all the same.
    """
    decoded, _ = records.batch(torch.arange(min(_TRIED, len(records))))
    if (nothing := _nothing_in(decoded)) and len(records) > _TRIED:
        step = max(1, len(records) // _LOOKED_AT)
        decoded_more, _ = records.batch(torch.arange(0, len(records), step)[:_LOOKED_AT])
        nothing = _nothing_in(decoded_more)
    if nothing:
        raise ValueError(
            f"there is nothing to learn from: {nothing}, such as {records.records.name(0)}; are the files "
            "right, and their values in the range that the decoder expects?"
        )
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


def _nothing_in(decoded: Sequence[Tensor]) -> str:
    """What is wrong with records that are all the same or all constant; empty if they are neither."""
    first = decoded[0]
    if len(decoded) > 1 and all(torch.equal(first, other) for other in decoded):
        return f"the {len(decoded)} records that were looked at are all the same"
    # Integers such as tokens may be few; pixels and samples are not.
    if all(_is_constant(record) for record in decoded):
        what = "black or of one colour, or silent"
        return f"each of the {len(decoded)} records that were looked at is constant ({what})"
    return ""


def _is_constant(record: Tensor) -> bool:
    if record.numel() < 2 or not (record.is_floating_point() or record.dtype == torch.uint8):
        return False
    channels = record.flatten(1) if record.ndim > 2 else record.flatten()[None]
    return bool((channels == channels[:, :1]).all())


def _check_views(name: str, view: Any) -> None:
    parts = list(view.values()) if isinstance(view, dict) else [view]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim and len(part) > 1]
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().any()):
            raise ValueError(f"{name} gives views without a finite value")
    if (
        tensors
        and len(tensors[0]) >= _BY_CHANCE
        and all(bool((tensor == tensor[:1]).all()) for tensor in tensors)
    ):
        raise ValueError(
            f"{name} gives the same view of all {len(tensors[0])} samples of the first batch: there is "
            "nothing to learn from"
        )


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
