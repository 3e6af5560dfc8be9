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
``draws: int`` and, if wanted, ``shared: int``
    How many uniform numbers one view of one sample needs, and how many of the first of them both
    views have in common (0 without it), such as where a long recording is cut.

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
    """A view half made: data after the worker's stage, and the parameters for the device's."""

    data: Any
    parameters: dict[str, Tensor]


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
    first, second = (uniforms(seed, epoch, index, view, augmentations.draws) for view in (0, 1))
    shared = getattr(augmentations, "shared", 0)
    second[:, :shared] = first[:, :shared]
    on_record = augmentations.on_record
    data = torch.stack(list(decoded)) if on_record is None else None
    halves = []
    for view, u in enumerate((first, second)):
        parameters = augmentations.draw(u, view)
        if on_record is not None:
            own = [{name: value[i] for name, value in parameters.items()} for i in range(len(index))]
            data = torch.stack([on_record(d, p) for d, p in zip(decoded, own, strict=True)])
        halves.append(Drawn(data, parameters))
    return Views(halves[0], halves[1], label)


def finish_views(augmentations: AugmentationSet, batch: Views) -> Views:
    """The device's half. Views that need none (no `Drawn`) pass through unchanged."""
    if not isinstance(batch.first, Drawn):
        return batch
    # Pixels, samples and indices are not what reduced precision is for.
    with torch.no_grad(), torch.autocast(batch.label.device.type, enabled=False):
        return Views(
            augmentations.on_batch(batch.first.data, batch.first.parameters, 0),
            augmentations.on_batch(batch.second.data, batch.second.parameters, 1),
            batch.label,
        )
