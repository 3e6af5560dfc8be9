"""The untrained and the trained text encoder, which every evaluation compares."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from encoders.text.loading import load_text_encoder
from encoders.text.sentences import SentenceEncoder

_BATCH = 128


class Compared(NamedTuple):
    """Functions from ``N`` texts to ``[N, width]``, by the name of their row."""

    encode: dict[str, Callable[..., Any]]
    width: int


def untrained_and_trained(
    name: str | Path,
    pooling: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    trust: Sequence[str] = (),
) -> Compared:
    """Loads an encoder with random weights and with its trained weights.

    Args:
        name, pooling, trust: see `encoders.text.loading.load_text_encoder`.
        device: where to run.
        seed: seed of the random weights.

    Raises:
        ValueError: as in `load_text_encoder`, or if there is no such device.
    """
    torch.manual_seed(seed)
    untrained, trained = (
        SentenceEncoder(*load_text_encoder(name, weights, pooling, trust), device)
        for weights in (False, True)
    )
    rows = {"untrained encoder": untrained, "trained encoder": trained}
    return Compared(
        {row: partial(encoder.encode, batch_size=_BATCH) for row, encoder in rows.items()},
        trained.features_dim,
    )
