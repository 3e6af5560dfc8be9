"""The augmentation set: what a view is, of images, sounds, texts or a user's own data.

Views are made in two stages. The first runs per record in the loader's workers (decode, crop), the second
per batch on the training device (everything that vectorises). Drawing the random parameters is separate
from applying them. `bt_multimodal.views` puts the stages together.

Legend: ``B`` samples of a batch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]


class AugmentationSet(nn.Module):
    """How the two views of a sample are made: the base class of augmentation sets.

    A subclass has to define `decode`, `draw`, `on_batch` and `clean_batch`, and set `draws`. Everything else
    has a default. An object that has the same members without being a subclass works as well: the core
    completes it with these defaults (`completed`).

    What a set remembers from batch to batch, such as past clips, belongs in the extra state of ``nn.Module``
    (``get_extra_state``, ``set_extra_state``): checkpoints save it, so that a continued run goes on with it.

    Attributes:
        draws: how many uniform random numbers one view of one sample needs.
        shared: how many of the first of them both views have in common, such as the place where a long
            recording is cut.
        on_record: ``(decoded, parameters) -> Tensor``, in a worker: what has to happen to each record
            separately, such as a crop to one size. ``None`` (the default): nothing, and both views start
            from the same decoded batch.
        common: ``(data) -> data``, on the training device: the computation that both views begin with,
            done once. In a set that has it, ``on_record`` uses the shared numbers alone, so it runs once a
            record. ``None``: there is none.
        read: ``(file, parameters) -> Tensor``, in a worker: the result of
            ``on_record(decode(content), parameters)`` read from an open file of which only a part may be
            needed. It replaces both where records are not cached. ``None``: files are read whole.
    """

    draws: int = 0
    shared: int = 0
    on_record: Callable[[Tensor, Parameters], Tensor] | None = None
    common: Callable[[Any], Any] | None = None
    read: Callable[[BinaryIO, Parameters], Tensor] | None = None

    def learn(self, contents: Iterable[Any]) -> None:
        """Learn from the undecoded contents of the training records, before any is decoded: a vocabulary."""

    def decode(self, raw: Any) -> Tensor:
        """In a worker: one undecoded record (bytes or an array) to a small tensor, without randomness.

        An exception marks the record as damaged.
        """
        raise TypeError(lacks(self, "decode"))

    def measure(self, records: Any) -> dict[str, Any]:
        """Measure statistics of the decoded training records (`data.decoding.DecodedRecords`).

        Returns:
            The constructor's arguments that keep the result: they are saved with the run and the encoder.
        """
        return {}

    def draw(self, u: Tensor, view: int) -> Parameters:
        """The random parameters of view 0 or 1, by name, from uniform numbers ``u [B, draws]``.

        The first axis of every value is ``B``.
        """
        raise TypeError(lacks(self, "draw"))

    def collate(self, samples: Sequence[Tensor]) -> Any:
        """In a worker: what `on_record` or `clean` returned for several samples, as one batch.

        By default they are stacked.

        Raises:
            ValueError: their shapes differ.
        """
        shapes = list(dict.fromkeys(tuple(sample.shape) for sample in samples))
        if len(shapes) > 1:
            raise ValueError(
                f"{_name(self)} gives samples of different shapes, such as {list(shapes[0])} and "
                f"{list(shapes[1])}: make them equal in on_record (for training) and clean (for evaluation), "
                "or define collate(samples)"
            )
        return torch.stack(list(samples))

    def on_batch(self, data: Any, parameters: Parameters, view: int) -> Any:
        """On the training device: a batch of `collate` (or ``common``) and its parameters to view 0 or 1."""
        raise TypeError(lacks(self, "on_batch"))

    def clean(self, decoded: Tensor) -> Tensor:
        """In evaluation, the counterpart of ``on_record`` without randomness; by default nothing."""
        return decoded

    def clean_batch(self, data: Any) -> Any:
        """In evaluation, the counterpart of `on_batch` without randomness: a batch to its view."""
        raise TypeError(lacks(self, "clean_batch"))

    @property
    def portable(self) -> dict[str, Any]:
        """Arguments of the class that rebuild the set on a machine without the files it was made from."""
        return {}


_REQUIRED = {
    "decode": "decode(raw) -> Tensor",
    "draw": "draw(u, view) -> dict of tensors",
    "on_batch": "on_batch(data, parameters, view) -> view",
    "clean_batch": "clean_batch(data) -> view",
}
_OPTIONAL = ("shared", "on_record", "common", "read", "learn", "measure", "collate", "clean", "portable")


def _name(augmentations: Any) -> str:
    return type(augmentations).__name__


def lacks(augmentations: Any, member: str) -> str:
    """The message for an augmentation set without a required member."""
    return (
        f"the augmentation set {_name(augmentations)} lacks {_REQUIRED[member]}; "
        "bt_multimodal.AugmentationSet documents it"
    )


def completed(augmentations: Any) -> AugmentationSet:
    """An augmentation set with every optional member of `AugmentationSet`.

    An instance of it is returned as it is. Any other object is given, in place, the defaults of the optional
    members that it does not have.
    """
    if isinstance(augmentations, AugmentationSet):
        return augmentations
    for member in _OPTIONAL:
        if not hasattr(augmentations, member):
            default = getattr(AugmentationSet, member)
            if isinstance(default, property):
                default = {}
            setattr(augmentations, member, default.__get__(augmentations) if callable(default) else default)
    return augmentations


def check_members(augmentations: Any) -> None:
    """Refuse an augmentation set that cannot work.

    Raises:
        ValueError: a required member is missing, or ``draws`` or ``shared`` is no sensible number.
    """
    known = isinstance(augmentations, AugmentationSet)
    for member in _REQUIRED:
        own = getattr(type(augmentations) if known else augmentations, member, None)
        if own is None or own is getattr(AugmentationSet, member):
            raise ValueError(lacks(augmentations, member))
    draws: Any = getattr(augmentations, "draws", None)
    shared: Any = getattr(augmentations, "shared", 0)
    for name, value in (("draws", draws), ("shared", shared)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(
                f"the augmentation set {_name(augmentations)} needs {name}, a number of uniform random "
                f"numbers, 0 or more; it has {value!r}"
            )
    if shared > draws:
        raise ValueError(f"{_name(augmentations)} shares {shared} of {draws} random numbers")


def stacks(augmentations: AugmentationSet) -> bool:
    """Whether the set collates by stacking (the default), so that all its samples need one shape."""
    return getattr(type(augmentations), "collate", AugmentationSet.collate) is AugmentationSet.collate
