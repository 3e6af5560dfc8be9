"""What the core has to know of a modality: how its data are found, named and summarised."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Modality(NamedTuple):
    """A modality, as the tasks see it.

    Attributes:
        unit: what its samples are called, in the plural: ``"images"``.
        extensions: endings of its files: ``(".jpg", ".png")``.
        columns: conventional names of the column that holds the contents, in order of preference.
        embedded: data sets that need no files: by name, functions that return a table's columns.
        inline: the cells of a table are the contents themselves, not paths to them.
        raw: the name of the trivial baseline (``"raw pixels"``), if there is one.
        raw_features: the trivial baseline: a view to its features ``[B, F]``.
        baselines: returns further rows of the final table. It is called with the training records, the
            test records, the encoder's ``features_dim``, and the options of `evaluation.probes.evaluate`
            other than ``mlp``.
    """

    unit: str
    extensions: tuple[str, ...]
    columns: tuple[str, ...]
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]]
    inline: bool = False
    raw: str | None = None
    raw_features: Callable[[Any], Tensor] | None = None
    baselines: Callable[..., Any] | None = None
