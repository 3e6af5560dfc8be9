"""Decoding of audio files, whole or in part, to mono waveforms at one sampling rate."""

import io
import os
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from bt_multimodal.data.file_kinds import HEAD, described, file_kind
from encoders.audio.counts import counted
from encoders.audio.resample import Ratio

# Samples per file over all channels (1 GiB as floats): a header can claim any length, and silence compresses
# to almost nothing.
MOST_SAMPLES = 2**28
# The largest sample that any sound can have: integers of 32 bits that were kept as floats. Above are damaged
# files, whose spectrograms would overflow.
LOUDEST = 2.0**31
# Formats in which seeking is exact to the sample. MP3's is after some frames, which depend on those before.
_EXACT = ("WAV", "WAVEX", "W64", "RF64", "AIFF", "AU", "CAF", "FLAC", "NIST", "MP3")
_MP3_FRAMES = 4 * 1152
# What `file_kind` calls the files that libsndfile reads.
_READ = ("WAV", "AIFF", "FLAC", "Ogg", "AU", "CAF", "MP3", "NIST SPHERE")


class _File:
    """An open file to libsndfile, which a damaged header may send before its beginning."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.read, self.readinto, self.tell = file.read, file.readinto, file.tell  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OSError, OverflowError):  # raised in a callback of C it would be printed
            return self._file.tell()

    def write(self, data: bytes) -> int:
        return 0


class _Sound(soundfile.SoundFile):
    """An open sound that may be read from its beginning only."""

    forwards = False

    def seekable(self) -> bool:
        return not self.forwards and super().seekable()  # it would seek after each read


def decode_audio(raw: bytes, rate: int) -> Tensor:
    """Decodes WAV, FLAC, OGG, MP3, ... to a mono waveform, float32 ``[T]``, at ``rate`` Hz.

    Channels are averaged. A WAV or Ogg file that is shorter than it says is decoded as far as it goes.

    Raises:
        ValueError: if the bytes are not audio, are cut short, have no samples, or NaN, infinite ones or ones
            above `LOUDEST`, or exceed `MOST_SAMPLES` over all channels or at ``rate``. The message is one
            line; it begins with "unsupported" if the file is of a known kind that is not read.
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
    whole = counted(file)
    whole.seek(0)
    try:
        with _Sound(_File(whole)) as sound:
            exact = sound.format in _EXACT and not sound.subtype.startswith("DWVW")
            forwards = sound.forwards = not (exact and sound.seekable())
            ratio, frames = Ratio(sound.samplerate, rate), sound.frames
            if frames >= 2**62:
                raise ValueError("the audio does not say its length, and is cut short or damaged")
            length = ratio.length(frames)
            first, count = stretch(length)
            start, stop = ratio.needed(first, count, frames)
            before = max(0, start - _MP3_FRAMES) if sound.format == "MP3" else start
            before = 0 if forwards else before
            to_read = stop - before
            if max(to_read * sound.channels, min(count, length)) > MOST_SAMPLES:
                size = f"{to_read:,} samples of {sound.channels} channel(s), {count:,} at {rate} Hz"
                raise ValueError(f"{size}, are over the limit of {MOST_SAMPLES:,}")
            if not forwards:
                sound.seek(before)
            samples = sound.read(to_read, dtype="float32", always_2d=True)[start - before :]
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(_undecoded(file, error)) from error
    if not frames:
        raise ValueError("the audio has no samples")
    if len(samples) < stop - start:
        raise ValueError(f"the audio is cut short: {start + len(samples)} of {frames} samples")
    if not np.isfinite(samples).all():
        raise ValueError("the audio has samples that are NaN or infinite")
    largest = max(samples.max(initial=0), -samples.min(initial=0))
    if largest > LOUDEST:
        raise ValueError(f"the audio has a sample of {largest:.3g}; sound is from -1 to 1")
    return ratio.resampled(torch.from_numpy(samples).mean(1), start, first, count)


def _undecoded(file: BinaryIO, error: Exception) -> str:
    """Returns what a file is that libsndfile does not read, and why."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    what, kind = described(head, size), file_kind(head)
    if kind is not None and kind not in _READ:
        return (
            f"unsupported audio: {what}; WAV, FLAC, OGG, MP3, AIFF, AU, CAF and others of libsndfile are read"
        )
    reason = " ".join(getattr(error, "error_string", str(error)).split())
    return f"cannot decode the audio: {what}: {reason}"
