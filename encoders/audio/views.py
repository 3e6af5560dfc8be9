"""Augmentation set for audio as log-mel spectrograms.

A view is a normalised float tensor ``[B, 1, F, T]``. Legend: ``B`` clips, ``S`` samples of sound per clip,
``F`` mel bands, ``T`` frames.
"""

from typing import Any, BinaryIO

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.data.progress import progressing
from bt_multimodal.distributed.collectives import gather_dealt
from encoders.audio import ops
from encoders.audio.decode import decode_audio, read_audio
from encoders.audio.log_mel import LogMel

_MEASURED = 2000  # most clips, evenly spaced, that mean and standard deviation are measured on


class SpectrogramViews(AugmentationSet):
    """Two augmented spectrograms of one segment of sound (Niizumi et al., "BYOL for Audio", 2021).

    Each view applies mixup in the linear domain with a past clip, a random resize crop, a random linear
    fader, and optionally Gaussian noise and SpecAugment's masks.

    The past clips are a memory of earlier batches, so a view depends on them; everything else depends only
    on (seed, epoch, sample, view). All ranks hold the same memory, so their views equal those of a single
    process: each step gathers the batch's spectrograms, ``4 N F T`` bytes for ``N`` clips.

    Args:
        seconds: length of a view in seconds. Longer clips are cropped, at the same place for both views;
            shorter clips are padded with silence. Evaluation takes the middle.
        rate: sampling rate in Hz; clips with another rate are resampled.
        n_fft, hop, n_mels, f_min, f_max: see `LogMel`.
        mixup: largest share of the past clip.
        memory: number of past clips.
        canvas: height and width of the canvas that a spectrogram is placed on before the crop, as multiples
            of the spectrogram's.
        scale: range of the crop's sides, as multiples of the spectrogram's.
        fader: largest change of the normalised log-mels at either end.
        noise: largest share of noise, mixed in the linear domain after normalisation. Its logarithm is
            Gaussian with that share as its standard deviation. 0 in the published set.
        band_mask, time_mask: largest share of the bands and of the frames that SpecAugment masks; 0 in the
            published set.
        mean, std: mean and standard deviation of the training clips' log-mels; measured by default.
    """

    draws = 15
    shared = 1

    def __init__(
        self,
        seconds: float = 1.0,
        rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 160,
        n_mels: int = 64,
        f_min: float = 60.0,
        f_max: float = 7800.0,
        mixup: float = 0.2,
        memory: int = 2048,
        canvas: tuple[float, float] = (1.0, 1.5),
        scale: tuple[float, float] = (0.6, 1.5),
        fader: float = 1.0,
        noise: float = 0.0,
        band_mask: float = 0.0,
        time_mask: float = 0.0,
        mean: float | None = None,
        std: float | None = None,
    ):
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError("mean and std come together: give both or neither")
        self.samples, self.rate = round(seconds * rate), rate
        self.log_mel = LogMel(rate, n_fft, hop, n_mels, f_min, f_max)
        self.mixup, self.memory, self.fader = mixup, memory, fader
        self.canvas, self.scale, self.noise = canvas, scale, noise
        self.band_mask, self.time_mask = band_mask, time_mask
        self.mean, self.std = mean, std
        self._past: Tensor | None = None  # ring buffer of `memory` log-mels
        self._written = 0  # number of log-mels written to it so far

    def measure(self, records: DecodedRecords) -> dict[str, float]:
        """Measures ``mean`` and ``std`` on training clips unless the constructor got them; returns both."""
        if self.mean is None or self.std is None:
            step = max(1, len(records) // _MEASURED)
            indices = progressing(range(0, len(records), step), "measuring spectrograms")
            clips = (records.get(i) for i in indices)
            log_mels = [self.log_mel(self.clean(clip)[None]).double() for clip in clips if clip is not None]
            values = torch.cat([log_mel.flatten() for log_mel in log_mels])
            self.mean, self.std = values.mean().item(), values.std().item()
        return {"mean": self.mean, "std": self.std}

    def decode(self, raw: bytes) -> Tensor:
        """Decodes a file's bytes to a waveform, float32 ``[samples]``."""
        return decode_audio(raw, self.rate)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """Returns parameters from ``u [B, 15]``; the segment is the same in both views."""
        frames = self.log_mel.frames(self.samples)
        masked_bands, masked_frames = self.band_mask * u[:, 9], self.time_mask * u[:, 11]
        return {
            "offset": u[:, 0],
            "mixup": self.mixup * u[:, 1],
            "partner": u[:, 2],
            **ops.crop_boxes(u[:, 3:7], self.log_mel.n_mels, frames, self.canvas, self.scale),
            "head": self.fader * (2 * u[:, 7] - 1),
            "tail": self.fader * (2 * u[:, 8] - 1),
            "noise": self.noise * u[:, 13],
            "noise_at": (u[:, 14] * ops.NOISE).long(),
            "bands": masked_bands,
            "band": u[:, 10] * (1 - masked_bands),
            "frames": masked_frames,
            "frame": u[:, 12] * (1 - masked_frames),
        }

    def on_record(self, decoded: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Returns the drawn segment, ``[S]``."""
        return self._stretch(decoded, float(parameters["offset"]))

    def read(self, file: BinaryIO, parameters: dict[str, Tensor]) -> Tensor:
        """Returns the drawn segment of a file, ``[S]``; the rest of a long file is not read."""
        offset = float(parameters["offset"])
        return self._stretch(read_audio(file, self.rate, lambda n: self._place(n, offset)), offset)

    def common(self, data: Tensor) -> Tensor:
        """Returns the log-mels ``[B, 1, F, T]`` of segments ``[B, S]``."""
        return self.log_mel(data)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """Augments log-mels ``[B, 1, F, T]`` from `common` to the view of the same shape."""
        p, x = parameters, data
        if self._past is not None:
            self._past = self._past.to(x.device)  # a checkpoint may restore it on another device
            partner = (p["partner"] * min(self._written, self.memory)).long()
            x = ops.log_mixup_exp(x, self._past[partner], p["mixup"])
        if self.mixup > 0 and view == 1:  # both views hold the same segment: store it once, after both
            self._remember(data)
        cropped = ops.resize_crop(
            self._normalise(x), p["top"], p["left"], p["height"], p["width"], self.canvas
        )
        faded = ops.linear_fade(cropped, p["head"], p["tail"])
        if self.noise > 0:
            noise = ops.gaussian(p["noise_at"], faded[0].numel()).view_as(faded)
            std = rearrange(p["noise"], "b -> b 1 1 1")
            faded = ops.log_mixup_exp(faded, std * noise, p["noise"])
        masked = ops.mask_stretch(faded, p["band"], p["bands"], axis=2)
        return ops.mask_stretch(masked, p["frame"], p["frames"], axis=3)

    def clean(self, decoded: Tensor) -> Tensor:
        """Returns the middle of the clip, ``[S]``."""
        return self._stretch(decoded, 0.5)

    def clean_batch(self, data: Tensor) -> Tensor:
        """Returns the normalised spectrograms ``[B, 1, F, T]`` of segments ``[B, S]``."""
        return self._normalise(self.log_mel(data))

    def _normalise(self, x: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            raise ValueError("mean and std of the log-mels are neither given nor measured: call measure")
        return (x - self.mean) / self.std

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the memory of past clips, which a run's checkpoint keeps."""
        return {"past": self._past, "given": self._written}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._past, self._written = state["past"], state["given"]

    def _remember(self, x: Tensor) -> None:
        if self._past is None:
            self._past = x.new_zeros(self.memory, *x.shape[1:])
        x = gather_dealt(x)[-self.memory :]
        slots = torch.arange(self._written, self._written + len(x), device=x.device) % self.memory
        self._past[slots] = x
        self._written += len(x)

    def _place(self, length: int, offset: float) -> tuple[int, int]:
        """Returns a segment's first sample and its number of samples; short clips are taken whole."""
        room = max(0, length - self.samples)
        return int(offset * (room + 1)), min(length, self.samples)

    def _stretch(self, wave: Tensor, offset: float) -> Tensor:
        start, count = self._place(len(wave), offset)
        missing = self.samples - count
        left = int(offset * (missing + 1))
        return functional.pad(wave[start : start + count], (left, missing - left))
