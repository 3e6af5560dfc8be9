"""Decoding of audio files, whole or in part, to mono waveforms at one sampling rate."""

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

# Limits per file: samples over all channels (1 GiB as floats), and weights of the resampler. A header can
# claim any length, and silence compresses to almost nothing.
MOST_SAMPLES, _MOST_WEIGHTS = 2**28, 2**22
_FILTER = 7  # reach of the resampler's filter in samples of the lower rate, rounded up


def decode_audio(raw: bytes, rate: int) -> Tensor:
    """Decodes WAV, FLAC, OGG, MP3, ... to a mono waveform, float32 ``[T]``, at ``rate`` Hz.

    Channels are averaged. A WAV file that is shorter than its header says is decoded as far as it goes.

    Raises:
        ValueError: if the bytes are not audio, are cut short, have no samples or NaN or infinite ones, exceed
            `MOST_SAMPLES` over all channels or at ``rate``, or have a rate whose ratio to ``rate`` is too
            odd to resample. The message is one line.
    """
    return read_audio(io.BytesIO(raw), rate, lambda length: (0, length))


def read_audio(file: BinaryIO, rate: int, stretch: Callable[[int], tuple[int, int]]) -> Tensor:
    """Decodes one segment of an audio file and reads no more of the file than that needs.

    The result equals that segment of `decode_audio`'s waveform.

    Args:
        file: encoded audio; it is read from its beginning, whatever its position.
        rate: sampling rate of the result in Hz.
        stretch: function from the file's number of samples ``T`` at ``rate`` to the segment's first sample
            and its number of samples.

    Raises:
        ValueError: as in `decode_audio`; damage outside the segment is not noticed.
    """
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            file_rate, frames = sound.samplerate, sound.frames
            divisor = math.gcd(file_rate, rate)
            inputs, outputs = file_rate // divisor, rate // divisor  # samples per block of the resampler
            if file_rate != rate and inputs * outputs > _MOST_WEIGHTS:
                raise ValueError(
                    f"{file_rate} Hz cannot be resampled to {rate} Hz: {inputs}:{outputs} is too odd"
                )
            first, count = stretch(math.ceil(frames * outputs / inputs))
            # Whole blocks, so that every sample has the same phase as in the whole file.
            edge = 0 if file_rate == rate else math.ceil(_FILTER / min(inputs, outputs)) + 1
            block = max(0, first // outputs - edge)
            start = block * inputs
            stop = min(frames, (math.ceil((first + count) / outputs) + edge) * inputs)
            to_read = stop if sound.format == "OGG" else stop - start
            if max(to_read * sound.channels, count) > MOST_SAMPLES:
                size = f"{to_read:,} samples of {sound.channels} channel(s), {count:,} at {rate} Hz"
                raise ValueError(f"{size}, are over the limit of {MOST_SAMPLES:,}")
            if sound.format == "OGG":  # seeking in OGG is not exact to the sample
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
    wave = wave if file_rate == rate else _resampler(file_rate, rate)(wave)
    offset = first - block * outputs
    return wave[offset : offset + count]


@lru_cache(maxsize=16)
def _resampler(file_rate: int, rate: int) -> Resample:
    return Resample(file_rate, rate)
