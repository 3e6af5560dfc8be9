"""What a view of a clip is for encoders that take waveforms."""

from typing import BinaryIO

import torch
from torch import Tensor
from torch.nn import functional

from bt_multimodal.augmentation_set import AugmentationSet
from encoders.audio import ops
from encoders.audio.decode import decode_audio, read_audio


class WaveformViews(AugmentationSet):
    """Distorted waveforms with masks: ``{"input_values", "attention_mask"}``, both ``[B, S]``.

    Both views alike: speed, white noise at a drawn signal-to-noise ratio, a stretch of silence, gain.
    Between the two stages padding is NaN, so that the mask needs no second tensor.

    Args:
        seconds: of sound a view at most, ``S = seconds * rate``; longer clips are cropped, each view
            for itself.
        rate: in Hz; other rates are resampled.
        speed: largest share by which a view is faster or slower (linear interpolation, pitch and all).
        noise_probability: share of the views with noise.
        snr: range of the signal-to-noise ratio in dB.
        mask: largest share of a view that is silenced in one stretch.
        gain: largest change of the volume in dB, louder or softer.
        normalise: bring each clip to mean 0 and variance 1 over its own sound, as wav2vec 2.0 and
            its kin expect (it undoes the gain); `PretrainedAST` wants the sound as it is.
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
            raise ValueError(f"speed and mask are shares from 0 to 1, not {speed} and {mask}")
        self.samples, self.rate, self.speed = round(seconds * rate), rate, speed
        self.noise_probability, self.snr, self.mask = noise_probability, snr, mask
        self.gain, self.normalise = gain, normalise

    def decode(self, raw: bytes) -> Tensor:
        """A file's bytes to float32 ``[T]``."""
        return decode_audio(raw, self.rate)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, 8]`` to parameters, the same way for both views."""
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
        """A stretch long enough for the fastest view, ``[ceil((1 + speed) S)]``, NaN after a short clip."""
        start, size = self._place(len(decoded), parameters)
        stretch = decoded[start : start + size]
        return functional.pad(stretch, (0, size - len(stretch)), value=torch.nan)

    def read(self, file: BinaryIO, parameters: dict[str, Tensor]) -> Tensor:
        """The same stretch of a file that may be long."""
        stretch = read_audio(file, self.rate, lambda length: self._place(length, parameters))
        return self.on_record(stretch, parameters)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> dict[str, Tensor]:
        """The distorted view."""
        p = parameters
        steps = torch.arange(self.samples, device=data.device)
        at = steps * p["speed"][:, None]
        low = at.floor().long().clamp(max=data.shape[1] - 2)
        here, next_, share = data.gather(1, low), data.gather(1, low + 1), at - low
        x = torch.where(share > 0, torch.lerp(here, next_, share), here)  # after the last sample is NaN
        heard = ~x.isnan()
        x = x.nan_to_num(0.0)
        length = heard.sum(1, keepdim=True).clamp(min=1)
        power = x.square().sum(1, keepdim=True) / length
        noise = ops.gaussian(p["noise"], self.samples)
        x = x + noise * (power * 10 ** (-p["snr"][:, None] / 10)).sqrt()
        size = p["masked"][:, None] * length
        start = p["mask_at"][:, None] * (length - size)
        x = x.masked_fill((steps >= start) & (steps < start + size), 0.0)
        return self._masked(x * p["gain"][:, None], heard)

    def clean(self, decoded: Tensor) -> Tensor:
        """The first ``seconds``, ``[S]``, NaN after a short clip."""
        stretch = decoded[: self.samples]
        return functional.pad(stretch, (0, self.samples - len(stretch)), value=torch.nan)

    def clean_batch(self, data: Tensor) -> dict[str, Tensor]:
        """``[B, S]`` to the undistorted view."""
        return self._masked(data.nan_to_num(0.0), ~data.isnan())

    def _place(self, length: int, parameters: dict[str, Tensor]) -> tuple[int, int]:
        """First sample and number of samples of a stretch; the latter also of a shorter clip."""
        size = int(self.samples * (1 + self.speed)) + 1
        return int(float(parameters["offset"]) * max(0, length - size + 1)), size

    def _masked(self, x: Tensor, heard: Tensor) -> dict[str, Tensor]:
        """The view, 0 where nothing is heard."""
        if self.normalise:
            length = heard.sum(1, keepdim=True).clamp(min=1)
            x = x - (x * heard).sum(1, keepdim=True) / length
            x = x / ((x * heard).square().sum(1, keepdim=True) / length + 1e-7).sqrt()
        return {"input_values": x * heard, "attention_mask": heard.long()}
