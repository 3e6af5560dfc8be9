"""Audio files to mono waveforms at one rate."""

import io
from functools import lru_cache

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample


def decode_audio(raw: bytes, rate: int) -> Tensor:
    """Encoded bytes (WAV, FLAC, OGG, MP3, ...) to float32 ``[T]``, channels averaged, at ``rate`` Hz.

    A WAV file that ends before its header says is taken for what there is of it.

    Raises:
        ValueError: no audio, cut short, without samples, or with NaN or infinity; one line.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            samples, own, promised = file.read(dtype="float32", always_2d=True), file.samplerate, file.frames
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(f"cannot decode the audio: {' '.join(str(error).split())}") from error
    if not len(samples):
        raise ValueError("the audio has no samples")
    if len(samples) < promised:
        raise ValueError(f"the audio is cut short: {len(samples)} of {promised} samples")
    if not np.isfinite(samples).all():
        raise ValueError("the audio has samples that are NaN or infinite")
    wave = torch.from_numpy(samples).mean(1)
    return wave if own == rate else _resampler(own, rate)(wave)


@lru_cache(maxsize=16)
def _resampler(own: int, rate: int) -> Resample:
    return Resample(own, rate)
