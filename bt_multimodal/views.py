"""Two views of each sample: what a batch of them is, and how an augmentation set makes it.

A view is any pytree of tensors, batch first; the core hands it to the encoder and looks at nothing in it.
Views are made in two stages. The first runs per record in the loader's workers (decode, crop), the second
per batch on the training device (everything that vectorises). Drawing the random parameters is separate
from applying them: they depend on (seed, epoch, sample index, view) alone, and applying them is a pure
function. The same views therefore come out for any number of workers or ranks.

Legend: ``B`` samples of a batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bt_multimodal.augmentation_set import AugmentationSet, Parameters, completed
from bt_multimodal.draws import uniforms


class Views(NamedTuple):
    """A batch: two views (pytrees of tensors, batch first) and labels ``[B]`` (-1: none)."""

    first: Any
    second: Any
    label: Tensor


class Drawn(NamedTuple):
    """A view between its two stages: the worker's data, and the parameters for the training device.

    ``data`` of a second view is ``None`` where it is the first's.
    """

    data: Any
    parameters: Parameters


class LabelledView(NamedTuple):
    """A batch for a classifier: one view, `Drawn` or clean, and labels ``[B]``."""

    view: Any
    label: Tensor


def draw_parameters(
    augmentations: AugmentationSet, seed: int, epoch: int, index: Tensor
) -> tuple[Parameters, Parameters]:
    """The random parameters of both views of the samples ``index [B]``."""
    augmentations = completed(augmentations)
    first, second = (uniforms(seed, epoch, index, view, augmentations.draws) for view in (0, 1))
    second[:, : augmentations.shared] = first[:, : augmentations.shared]
    return augmentations.draw(first, 0), augmentations.draw(second, 1)


def record_parameters(
    augmentations: AugmentationSet, parameters: tuple[Parameters, Parameters], batch: int
) -> list[list[Parameters]]:
    """The parameters that ``on_record`` is called with, sample by sample.

    Returns:
        For each of ``batch`` samples, those of its two views, or of the first alone in a set with ``common``.
    """
    once = augmentations.common is not None
    views = [_rows(drawn, batch) for drawn in parameters[: 1 if once else 2]]
    return [list(sample) for sample in zip(*views, strict=True)]


def _rows(drawn: Parameters, batch: int) -> list[Parameters]:
    """The parameters of a batch, sample by sample."""
    values = [value.unbind() for value in drawn.values()]
    rows = zip(*values, strict=True) if values else ((),) * batch
    return [dict(zip(drawn, row, strict=True)) for row in rows]


def collate_views(
    augmentations: AugmentationSet,
    parameters: tuple[Parameters, Parameters],
    made: Sequence[Sequence[Tensor]],
    label: Tensor,
) -> Views:
    """A batch from what ``on_record`` returned for every sample, in the order of `record_parameters`."""
    data = [augmentations.collate(view) for view in zip(*made, strict=True)]
    first, second = parameters
    return Views(Drawn(data[0], first), Drawn(data[1] if len(data) > 1 else None, second), label)


def draw_views(
    augmentations: AugmentationSet,
    decoded: Sequence[Tensor],
    label: Tensor,
    seed: int,
    epoch: int,
    index: Tensor,
) -> Views:
    """The worker's stage of both views of a batch.

    Args:
        decoded: one decoded record a sample.
        index: ``[B]`` sample indices within the data set.

    Returns:
        `Views` of `Drawn`; `finish_views` makes them views.
    """
    augmentations = completed(augmentations)
    parameters = draw_parameters(augmentations, seed, epoch, index)
    on_record = augmentations.on_record
    if on_record is None:
        return collate_views(augmentations, parameters, [[record] for record in decoded], label)
    per_sample = record_parameters(augmentations, parameters, len(index))
    made = [
        [on_record(record, of_view) for of_view in of_sample]
        for record, of_sample in zip(decoded, per_sample, strict=True)
    ]
    return collate_views(augmentations, parameters, made, label)


def draw_view(
    augmentations: AugmentationSet, decoded: Sequence[Tensor], seed: int, epoch: int, index: Tensor
) -> Drawn:
    """The worker's stage of the first view alone; arguments as in `draw_views`."""
    augmentations = completed(augmentations)
    drawn = augmentations.draw(uniforms(seed, epoch, index, 0, augmentations.draws), 0)
    on_record = augmentations.on_record
    if on_record is None:
        return Drawn(augmentations.collate(decoded), drawn)
    rows = _rows(drawn, len(index))
    made = [on_record(record, parameters) for record, parameters in zip(decoded, rows, strict=True)]
    return Drawn(augmentations.collate(made), drawn)


def finish_view(augmentations: AugmentationSet, drawn: Drawn) -> Any:
    """The device's stage of a first view."""
    augmentations = completed(augmentations)
    with torch.no_grad(), torch.autocast(drawn.data.device.type, enabled=False):
        data = drawn.data if augmentations.common is None else augmentations.common(drawn.data)
        return augmentations.on_batch(data, drawn.parameters, 0)


def finish_views(augmentations: AugmentationSet, batch: Views) -> Views:
    """The device's stage of both views. Views that need none (no `Drawn`) pass through unchanged."""
    first, second = batch.first, batch.second
    if not isinstance(first, Drawn):
        return batch
    augmentations = completed(augmentations)
    # Pixels, samples and indices are not what reduced precision is for.
    with torch.no_grad(), torch.autocast(batch.label.device.type, enabled=False):
        data = first.data if augmentations.common is None else augmentations.common(first.data)
        return Views(
            augmentations.on_batch(data, first.parameters, 0),
            augmentations.on_batch(data if second.data is None else second.data, second.parameters, 1),
            batch.label,
        )
