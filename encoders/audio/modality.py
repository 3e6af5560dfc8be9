"""How audio is found in data."""

from functools import cache

import torch
from torch import Tensor

from bt_multimodal.modality import Modality
from encoders.audio.log_mel import LogMel
from encoders.audio.synthetic import synthetic


@cache
def _log_mel() -> LogMel:
    return LogMel()


def mean_and_std(view: Tensor | dict[str, Tensor]) -> Tensor:
    """Of every log-mel band over time, ``[B, 2 F]``: of spectrograms, or made of waveforms first."""
    mels = _log_mel()(view["input_values"]) if isinstance(view, dict) else view
    return torch.cat([mels.mean(-1), mels.std(-1)], dim=1).flatten(1)


AUDIO = Modality(
    unit="clips",
    raw="log-mel mean, std",
    raw_features=mean_and_std,
    extensions=(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au"),
    columns=("audio", "sound", "wav", "path", "file", "filename", "file_name", "clip"),
    embedded={"synthetic": synthetic},
)
