"""Resampling of waveforms from any rate to any other."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

_MOST_WEIGHTS = 2**22  # of torchaudio's resampler; other ratios of rates are computed sample by sample
_CYCLES, _ROLLOFF = 6, 0.99  # torchaudio's low-pass filter: half its length in zero crossings, and its edge
_AT_ONCE = 2**20  # weights


class Ratio:
    """How samples at one rate become samples at another.

    Args:
        file_rate, rate: both rates in Hz, 1 or more.
    """

    def __init__(self, file_rate: int, rate: int):
        divisor = math.gcd(file_rate, rate)
        self.file_rate, self.rate = file_rate, rate
        self.inputs, self.outputs = file_rate // divisor, rate // divisor  # samples of equal duration
        self._blocks = self.inputs * self.outputs <= _MOST_WEIGHTS
        # The filter's half length in samples at the file's rate.
        self._reach = math.ceil(_CYCLES * file_rate / (min(file_rate, rate) * _ROLLOFF))

    def length(self, frames: int) -> int:
        """Returns the number of samples that ``frames`` samples become."""
        return -(-frames * self.outputs // self.inputs)

    def needed(self, first: int, count: int, frames: int) -> tuple[int, int]:
        """Returns the samples of the file, ``start .. stop``, that ``count`` samples from ``first`` need."""
        if self.file_rate == self.rate:
            return first, min(frames, first + count)
        if not self._blocks:
            start = first * self.inputs // self.outputs - self._reach
            stop = (first + count) * self.inputs // self.outputs + self._reach + 1
            return min(frames, max(0, start)), min(frames, stop)
        # Whole blocks, so that every sample has the same phase as in the whole file.
        edge = math.ceil((_CYCLES + 1) / min(self.inputs, self.outputs)) + 1
        block = max(0, first // self.outputs - edge)
        return block * self.inputs, min(
            frames, (math.ceil((first + count) / self.outputs) + edge) * self.inputs
        )

    def resampled(self, wave: Tensor, start: int, first: int, count: int) -> Tensor:
        """Returns ``count`` samples from ``first`` at the new rate, fewer at the end of the sound.

        Args:
            wave: the samples of the file from ``start`` on, as far as `needed` says.
        """
        if self.file_rate == self.rate:
            return wave[:count]
        if self._blocks:
            offset = first - start // self.inputs * self.outputs
            return _resampler(self.file_rate, self.rate)(wave)[offset : offset + count]
        end = min(first + count, self.length(start + len(wave)))
        step = max(1, _AT_ONCE // (2 * self._reach + 1))
        parts = [self._exactly(wave, start, at, min(at + step, end)) for at in range(first, end, step)]
        return torch.cat(parts) if parts else wave[:0]

    def _exactly(self, wave: Tensor, start: int, first: int, end: int) -> Tensor:
        """Returns samples ``first .. end``, each by its own weights of torchaudio's filter."""
        at = torch.arange(first, end) * self.inputs  # in units of 1 / outputs samples of the file
        nearest, rest = at // self.outputs, at % self.outputs
        offsets = torch.arange(-self._reach, self._reach + 1)
        edge = min(self.file_rate, self.rate) * _ROLLOFF / self.file_rate
        t = (offsets - (rest.double() / self.outputs)[:, None]) * edge
        window = torch.cos(t.clamp(-_CYCLES, _CYCLES) * (math.pi / _CYCLES / 2)).square()
        weights = torch.sinc(t) * window * edge
        places = nearest[:, None] + offsets - start
        inside = (places >= 0) & (places < len(wave))
        samples = wave.double()[places.clamp(0, max(0, len(wave) - 1))]
        return (samples * weights * inside).sum(1).float()


@lru_cache(maxsize=16)
def _resampler(file_rate: int, rate: int) -> Resample:
    return Resample(file_rate, rate)
