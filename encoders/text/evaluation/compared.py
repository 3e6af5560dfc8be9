"""An encoder of texts beside what it was before training: the rows that every evaluation has."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from encoders.text.loading import load_text_encoder
from encoders.text.sentences import SentenceEncoder

_BATCH = 128


class Compared(NamedTuple):
    """By name, functions from ``N`` texts to ``[N, width]``."""

    encode: dict[str, Callable[..., Any]]
    width: int


def untrained_and_trained(
    name: str | Path, pooling: str | None = None, device: str = "cpu", seed: int = 0
) -> Compared:
    """The encoder with fresh weights and with its own.

    Args:
        name, pooling: as in `encoders.text.loading.load_text_encoder`.
        seed: of the fresh weights.

    Raises:
        ValueError: as there, or no such device.
    """
    torch.manual_seed(seed)
    untrained, trained = (
        SentenceEncoder(*load_text_encoder(name, weights, pooling), device) for weights in (False, True)
    )
    rows = {"untrained encoder": untrained, "trained encoder": trained}
    return Compared(
        {row: partial(encoder.encode, batch_size=_BATCH) for row, encoder in rows.items()},
        trained.features_dim,
    )
