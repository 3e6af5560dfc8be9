"""What a batch is, and how two views of each sample come about.

A view is any pytree of tensors, batch first. An augmentation set says how views of its modality
are made; it is any object with

``decode(raw) -> Tensor``
    Worker: one raw record (bytes, an array, a path's content) to a small tensor, no randomness.
``draw(u, view) -> dict[str, Tensor]``
    ``u [B, draws]`` uniform numbers to the named random parameters of view 0 or 1.
``on_record(decoded, parameters) -> Tensor``
    Worker: what has to happen record by record, such as a crop to one size; ``None`` for nothing,
    where all records decode to one shape.
``on_batch(data, parameters, view) -> view``
    Training device: everything that vectorises.
``clean(decoded) -> Tensor`` and ``clean_batch(data) -> view``
    The same two stages without randomness, for evaluation.
``collate(samples) -> data``, if wanted
    Worker: what ``on_record`` or ``clean`` gave of several samples to one batch, where their shapes
    differ. Without it they are stacked.
``learn(contents) -> None``, if wanted
    Once, before anything is decoded: from the undecoded contents of the training records, such as a
    vocabulary.
``portable: dict``, if wanted (an encoder may have it too)
    Arguments of its class that rebuild it where the files that it was made from are not.
``draws: int`` and, if wanted, ``shared: int``
    How many uniform numbers one view of one sample needs, and how many of the first of them both
    views have in common (0 without it), such as where a long recording is cut.
``common(data) -> data``, if wanted
    Training device: what both views begin with, made once. In a set that has it ``on_record`` uses
    the shared numbers alone, so it runs once a record.
``read(file, parameters) -> Tensor``, if wanted
    Worker: what ``on_record(decode(content), parameters)`` gives, from an open file (from its
    beginning, wherever it stands) of which only a part may be needed. Takes the place of both where
    records are not cached.

A bare loop takes any such object; the command line takes an ``nn.Module``, by class path.

Drawing and applying are separate: parameters depend on (seed, epoch, sample index, view) only,
applying is a pure function of data and parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bt_multimodal.draws import uniforms


class Views(NamedTuple):
    """A batch: two views (pytrees of tensors, batch first) and labels ``[B]`` (-1: none)."""

    first: Any
    second: Any
    label: Tensor


class Drawn(NamedTuple):
    """A view half made: data after the worker's stage, and the parameters for the device's.

    ``data`` of a second view is ``None`` where it is the first's.
    """

    data: Any
    parameters: dict[str, Tensor]


class Labelled(NamedTuple):
    """A batch for a classifier: one view, `Drawn` or cleaned, and labels ``[B]``."""

    view: Any
    label: Tensor


class AugmentationSet(Protocol):
    """The interface in the module's docstring."""

    draws: int

    @property
    def on_record(self) -> Callable[[Tensor, dict[str, Tensor]], Tensor] | None: ...
    def decode(self, raw: Any) -> Tensor: ...
    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]: ...
    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Any: ...
    def clean(self, decoded: Tensor) -> Tensor: ...
    def clean_batch(self, data: Tensor) -> Any: ...


def draw_parameters(
    augmentations: AugmentationSet, seed: int, epoch: int, index: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters of both views of the samples ``index [B]``; each value's first axis is ``B``."""
    first, second = (uniforms(seed, epoch, index, view, augmentations.draws) for view in (0, 1))
    shared = getattr(augmentations, "shared", 0)
    second[:, :shared] = first[:, :shared]
    return augmentations.draw(first, 0), augmentations.draw(second, 1)


def record_parameters(
    augmentations: AugmentationSet, parameters: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> list[list[dict[str, Tensor]]]:
    """What a record's stage is asked for, sample by sample: the parameters of each view, or once for both."""
    once = hasattr(augmentations, "common")
    views = [_rows(drawn) for drawn in parameters[: 1 if once else 2]]
    return [list(own) for own in zip(*views, strict=True)]


def _rows(drawn: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """A batch's parameters, sample by sample."""
    values = [value.unbind() for value in drawn.values()]
    return [dict(zip(drawn, row, strict=True)) for row in zip(*values, strict=True)]


def collate(augmentations: AugmentationSet, samples: Sequence[Tensor]) -> Any:
    """Several samples as one batch."""
    own = getattr(augmentations, "collate", None)
    return torch.stack(list(samples)) if own is None else own(samples)


def collate_views(
    augmentations: AugmentationSet,
    parameters: tuple[dict[str, Tensor], dict[str, Tensor]],
    made: Sequence[Sequence[Tensor]],
    label: Tensor,
) -> Views:
    """A batch of what was made of every sample, in the order of `record_parameters`."""
    data = [collate(augmentations, view) for view in zip(*made, strict=True)]
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
    """The worker's half of both views of a batch.

    Args:
        decoded: one decoded record a sample.
        index: ``[B]`` sample indices within the data set.

    Returns:
        `Views` whose views are `Drawn`; `finish_views` makes them views.
    """
    parameters = draw_parameters(augmentations, seed, epoch, index)
    on_record = augmentations.on_record
    if on_record is None:
        return collate_views(augmentations, parameters, [[one] for one in decoded], label)
    asked = record_parameters(augmentations, parameters)
    made = [[on_record(one, own) for own in views] for one, views in zip(decoded, asked, strict=True)]
    return collate_views(augmentations, parameters, made, label)


def draw_view(
    augmentations: AugmentationSet, decoded: Sequence[Tensor], seed: int, epoch: int, index: Tensor
) -> Drawn:
    """The worker's half of the first view alone; arguments as `draw_views`."""
    drawn = augmentations.draw(uniforms(seed, epoch, index, 0, augmentations.draws), 0)
    on_record = augmentations.on_record
    if on_record is None:
        return Drawn(collate(augmentations, decoded), drawn)
    made = [on_record(one, own) for one, own in zip(decoded, _rows(drawn), strict=True)]
    return Drawn(collate(augmentations, made), drawn)


def finish_view(augmentations: AugmentationSet, drawn: Drawn) -> Any:
    """The device's half of a first view."""
    common = getattr(augmentations, "common", None)
    with torch.no_grad(), torch.autocast(drawn.data.device.type, enabled=False):
        data = drawn.data if common is None else common(drawn.data)
        return augmentations.on_batch(data, drawn.parameters, 0)


def finish_views(augmentations: AugmentationSet, batch: Views) -> Views:
    """The device's half. Views that need none (no `Drawn`) pass through unchanged."""
    first, second = batch.first, batch.second
    if not isinstance(first, Drawn):
        return batch
    # Pixels, samples and indices are not what reduced precision is for.
    with torch.no_grad(), torch.autocast(batch.label.device.type, enabled=False):
        common = getattr(augmentations, "common", None)
        data = first.data if common is None else common(first.data)
        return Views(
            augmentations.on_batch(data, first.parameters, 0),
            augmentations.on_batch(data if second.data is None else second.data, second.parameters, 1),
            batch.label,
        )
