"""What the core needs to know about a modality: how to find, name and summarise its data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Modality(NamedTuple):
    """A modality, as the tasks use it.

    Attributes:
        unit: the plural of a sample: ``"images"``.
        extensions: file extensions: ``(".jpg", ".png")``.
        columns: conventional names of the column of contents, in order of preference.
        embedded: data sets without files: functions that return a table's columns, by name.
        inline: strings in the cells of a table are contents, not paths.
        raw: name of the trivial baseline (``"raw pixels"``), if there is one.
        raw_features: the trivial baseline: takes a view, returns its features ``[B, F]``.
        baselines: returns further rows of the final table. It is called with the training records, the
            test records, the encoder's ``features_dim``, and the options of `evaluation.probes.evaluate`
            except ``mlp``.
    """

    unit: str
    extensions: tuple[str, ...]
    columns: tuple[str, ...]
    embedded: Mapping[str, Callable[[], Mapping[str, list[Any]]]]
    inline: bool = False
    raw: str | None = None
    raw_features: Callable[[Any], Tensor] | None = None
    baselines: Callable[..., Any] | None = None
