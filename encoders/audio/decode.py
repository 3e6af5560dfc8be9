"""Audio files to mono waveforms at one rate, whole or the part that is wanted."""

import io
import math
from collections.abc import Callable
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

# Numbers that one file may make us hold: those of all channels read, as floats 1 GiB, and the resampler's
# weights. A header may claim anything, and silence packs into next to nothing.
MOST_SAMPLES, _MOST_WEIGHTS = 2**28, 2**22
_FILTER = 7  # the resampler's filter reaches this many samples of the lower rate, rounded up


def decode_audio(raw: bytes, rate: int) -> Tensor:
    """Encoded bytes (WAV, FLAC, OGG, MP3, ...) to float32 ``[T]``, channels averaged, at ``rate`` Hz.

    A WAV file that ends before its header says is taken for what there is of it.

    Raises:
        ValueError: no audio, cut short, without samples, with NaN or infinity, longer than `MOST_SAMPLES`
            over all channels or at ``rate``, or at a rate that makes an odd ratio with it; one line.
    """
    return read_audio(io.BytesIO(raw), rate, lambda length: (0, length))


def read_audio(file: BinaryIO, rate: int, stretch: Callable[[int], tuple[int, int]]) -> Tensor:
    """A stretch of what `decode_audio` gives, reading no more of the open file than it needs.

    Args:
        file: encoded audio, from its beginning wherever it stands.
        rate: in Hz.
        stretch: from the number of samples ``T`` at ``rate`` to the first sample wanted and how many.

    Raises:
        ValueError: as `decode_audio`; damage outside the stretch goes unnoticed.
    """
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            own, frames = sound.samplerate, sound.frames
            common = math.gcd(own, rate)
            inputs, outputs = own // common, rate // common  # samples of a block of the resampler
            if own != rate and inputs * outputs > _MOST_WEIGHTS:
                raise ValueError(f"{own} Hz cannot be resampled to {rate} Hz: {inputs}:{outputs} is too odd")
            first, count = stretch(math.ceil(frames * outputs / inputs))
            # Whole blocks, so that every sample has the phase it has in the whole file.
            edge = 0 if own == rate else math.ceil(_FILTER / min(inputs, outputs)) + 1
            block = max(0, first // outputs - edge)
            start = block * inputs
            stop = min(frames, (math.ceil((first + count) / outputs) + edge) * inputs)
            read = stop if sound.format == "OGG" else stop - start
            if max(read * sound.channels, count) > MOST_SAMPLES:
                asked = f"{read:,} samples of {sound.channels} channel(s), {count:,} at {rate} Hz"
                raise ValueError(f"{asked}, are over the limit of {MOST_SAMPLES:,}")
            if sound.format == "OGG":  # whose seeking is not exact to the sample
                samples = sound.read(stop, dtype="float32", always_2d=True)[start:]
            else:
                sound.seek(start)
                samples = sound.read(stop - start, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(f"cannot decode the audio: {' '.join(str(error).split())}") from error
    if not frames:
        raise ValueError("the audio has no samples")
    if len(samples) < stop - start:
        raise ValueError(f"the audio is cut short: {start + len(samples)} of {frames} samples")
    if not np.isfinite(samples).all():
        raise ValueError("the audio has samples that are NaN or infinite")
    wave = torch.from_numpy(samples).mean(1)
    wave = wave if own == rate else _resampler(own, rate)(wave)
    at = first - block * outputs
    return wave[at : at + count]


@lru_cache(maxsize=16)
def _resampler(own: int, rate: int) -> Resample:
    return Resample(own, rate)
