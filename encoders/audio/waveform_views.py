"""Augmentation set for audio as waveforms."""

from typing import BinaryIO

import torch
from torch import Tensor
from torch.nn import functional

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.audio import ops
from encoders.audio.decode import decode_audio, read_audio


class WaveformViews(AugmentationSet):
    """Augmented waveforms with masks: ``{"input_values", "attention_mask"}``, both ``[B, S]``.

    Each view changes the speed, adds white noise at a random signal-to-noise ratio, silences one interval and
    changes the gain. Between the two stages, padding is NaN, so that the mask needs no second tensor.

    Args:
        seconds: length of a view in seconds, ``S = seconds * rate`` samples. Longer clips are cropped,
            independently for each view.
        rate: sampling rate in Hz; clips with another rate are resampled.
        speed: largest fraction by which a view is faster or slower (linear interpolation, which also shifts
            the pitch).
        noise_probability: probability that a view gets noise.
        snr: range of the signal-to-noise ratio in dB.
        mask: largest fraction of a view that is silenced, as one interval.
        gain: largest change of the volume in dB, up or down.
        normalise: scale each clip to mean 0 and variance 1 over its sound, as wav2vec 2.0 and similar models
            expect (this undoes the gain). `PretrainedAST` expects unnormalised sound.
    """

    draws = 8

    def __init__(
        self,
        seconds: float = 4.0,
        rate: int = 16_000,
        speed: float = 0.1,
        noise_probability: float = 0.5,
        snr: tuple[float, float] = (5.0, 40.0),
        mask: float = 0.1,
        gain: float = 0.0,
        normalise: bool = True,
    ):
        super().__init__()
        if not 0 <= speed < 1 or not 0 <= mask < 1:
            raise ValueError(f"speed and mask must be from 0 to below 1, not {speed} and {mask}")
        self.samples, self.rate, self.speed = round(seconds * rate), rate, speed
        self.noise_probability, self.snr, self.mask = noise_probability, snr, mask
        self.gain, self.normalise = gain, normalise

    def decode(self, raw: bytes) -> Tensor:
        """Decodes a file's bytes to a waveform, float32 ``[samples]``."""
        return decode_audio(raw, self.rate)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 8]``, in the same way for both views."""
        noisy = u[:, 2] < self.noise_probability
        snr = self.snr[0] + (self.snr[1] - self.snr[0]) * u[:, 3]
        return {
            "offset": u[:, 0],
            "speed": 1 + self.speed * (2 * u[:, 1] - 1),
            "snr": torch.where(noisy, snr, torch.inf),
            "noise": (u[:, 4] * ops.NOISE).long(),
            "masked": self.mask * u[:, 5],
            "mask_at": u[:, 6],
            "gain": 10 ** (self.gain * (2 * u[:, 7] - 1) / 20),
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Returns a segment long enough for the fastest view, ``[ceil((1 + speed) S)]``, padded with NaN."""
        start, size = self._place(len(decoded), parameters)
        return _padded(decoded[start : start + size], size)

    def read(self, file: BinaryIO, parameters: dict[str, Tensor]) -> Tensor:
        """Returns the same segment of a file; the rest of a long file is not read."""
        segment = read_audio(file, self.rate, lambda length: self._place(length, parameters))
        return self.on_record(segment, parameters)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> dict[str, Tensor]:
        """Augments segments from `on_record` to the view."""
        p = parameters
        steps = torch.arange(self.samples, device=data.device)
        position = steps * p["speed"][:, None]
        low = position.floor().long().clamp(max=data.shape[1] - 2)
        left, right, fraction = data.gather(1, low), data.gather(1, low + 1), position - low
        # The last sample's right neighbour may be the NaN padding.
        x = torch.where(fraction > 0, torch.lerp(left, right, fraction), left)
        mask = ~x.isnan()
        x = x.nan_to_num(0.0)
        length = mask.sum(1, keepdim=True).clamp(min=1)
        power = x.square().sum(1, keepdim=True) / length
        noise = ops.gaussian(p["noise"], self.samples)
        x = x + noise * (power * 10 ** (-p["snr"][:, None] / 10)).sqrt()
        size = p["masked"][:, None] * length
        start = p["mask_at"][:, None] * (length - size)
        x = x.masked_fill((steps >= start) & (steps < start + size), 0.0)
        return self._masked(x * p["gain"][:, None], mask)

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the first ``seconds``, ``[S]``, padded with NaN."""
        return _padded(decoded[: self.samples], self.samples)

    def clean_batch(self, data: Tensor) -> dict[str, Tensor]:
        """Returns the view without augmentation of segments ``[B, S]``."""
        return self._masked(data.nan_to_num(0.0), ~data.isnan())

    def _place(self, length: int, parameters: dict[str, Tensor]) -> tuple[int, int]:
        """Returns a segment's first sample and its number of samples, which may exceed a short clip's."""
        size = int(self.samples * (1 + self.speed)) + 1
        return int(float(parameters["offset"]) * max(0, length - size + 1)), size

    def _masked(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Returns the view, which is 0 outside the mask."""
        if self.normalise:
            length = mask.sum(1, keepdim=True).clamp(min=1)
            x = x - (x * mask).sum(1, keepdim=True) / length
            x = x / ((x * mask).square().sum(1, keepdim=True) / length + 1e-7).sqrt()
        return {"input_values": x * mask, "attention_mask": mask.long()}


def _padded(wave: Tensor, size: int) -> Tensor:
    return functional.pad(wave, (0, size - len(wave)), value=torch.nan)
