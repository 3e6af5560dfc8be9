"""What a view of a clip is: a log-mel spectrogram, distorted as published for audio twins.

A view is float ``[B, 1, F, T]``, normalised. Legend: ``B`` samples, ``S`` samples of sound a clip,
``F`` mel bands, ``T`` frames.
"""

from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn import functional

from bt_multimodal.augmentation_set import AugmentationSet
from bt_multimodal.data.decoding import DecodedRecords
from bt_multimodal.distributed.collectives import gather_dealt
from encoders.audio import ops
from encoders.audio.decode import decode_audio, read_audio
from encoders.audio.log_mel import LogMel

_MEASURED = 2000  # clips at most, evenly spaced, for the mean and standard deviation


class SpectrogramViews(AugmentationSet):
    """Two distorted spectrograms of one stretch of sound (Niizumi et al., "BYOL for Audio", 2021).

    Both views alike: mixed in the linear domain with a past clip, random resize crop, random linear
    fader, and if wanted Gaussian noise and SpecAugment's masks. The past clips are a memory that
    fills as batches go by, so the views depend on the batches before; everything else depends on
    (seed, epoch, sample, view) alone. All ranks have the same memory, so that the views are those of one
    process: a step gathers the batch's spectrograms, ``4 N F T`` bytes.

    Args:
        seconds: of sound a view; longer clips are cropped, both views alike, shorter ones padded
            with silence. Evaluation takes the middle.
        rate: in Hz; other rates are resampled.
        n_fft, hop, n_mels, f_min, f_max: see `LogMel`.
        mixup: largest share of the past clip.
        memory: past clips to mix with.
        canvas: height and width that a spectrogram is put on before the crop, in multiples of its own.
        scale: range of the crop's sides, in multiples of the spectrogram's.
        fader: largest change of the normalised log-mels at either end.
        noise: largest share of noise, mixed in the linear domain after normalising, whose logarithm
            is Gaussian with that share as its standard deviation; 0 in the published set.
        band_mask, time_mask: largest share of the bands, and of the frames, that SpecAugment masks;
            0 in the published set.
        mean, std: of all log-mels of the training clips; measured if not given.
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
            raise ValueError("mean and std come together")
        self.samples, self.rate = round(seconds * rate), rate
        self.log_mel = LogMel(rate, n_fft, hop, n_mels, f_min, f_max)
        self.mixup, self.memory, self.fader = mixup, memory, fader
        self.canvas, self.scale, self.noise = canvas, scale, noise
        self.band_mask, self.time_mask = band_mask, time_mask
        self.mean, self.std = mean, std
        self._past: Tensor | None = None  # a ring of `memory` log-mels, and how many it has been given
        self._given = 0

    def measure(self, records: DecodedRecords) -> dict[str, float]:
        """Set ``mean`` and ``std`` from training clips unless they were given; the arguments to keep."""
        if self.mean is None or self.std is None:
            step = max(1, len(records) // _MEASURED)
            clips = (records.get(i) for i in range(0, len(records), step))
            mels = [self.log_mel(self.clean(clip)[None]).double() for clip in clips if clip is not None]
            values = torch.cat([mel.flatten() for mel in mels])
            self.mean, self.std = values.mean().item(), values.std().item()
        return {"mean": self.mean, "std": self.std}

    def decode(self, raw: bytes) -> Tensor:
        """A file's bytes to float32 ``[T]``."""
        return decode_audio(raw, self.rate)

    def draw(self, u: Tensor, view: int) -> dict[str, Tensor]:
        """``u [B, 15]`` to parameters; the stretch is the same in both views."""
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
        """The drawn stretch, ``[S]``."""
        return self._stretch(decoded, float(parameters["offset"]))

    def read(self, file: BinaryIO, parameters: dict[str, Tensor]) -> Tensor:
        """The drawn stretch of a file that may be long, ``[S]``."""
        offset = float(parameters["offset"])
        return self._stretch(read_audio(file, self.rate, lambda n: self._place(n, offset)), offset)

    def common(self, data: Tensor) -> Tensor:
        """``[B, S]`` to log-mels ``[B, 1, F, T]``."""
        return self.log_mel(data)

    def on_batch(self, data: Tensor, parameters: dict[str, Tensor], view: int) -> Tensor:
        """``[B, 1, F, T]`` of `common` to the view of the same shape."""
        p, x = parameters, data
        if self._past is not None:
            self._past = self._past.to(x.device)  # read from a checkpoint it may lie elsewhere
            partner = (p["partner"] * min(self._given, self.memory)).long()
            x = ops.log_mixup_exp(x, self._past[partner], p["mixup"])
        if self.mixup > 0 and view == 1:  # both views hold the same stretch: remembered once, after both
            self._remember(data)
        cropped = ops.resize_crop(
            self._normalise(x), p["top"], p["left"], p["height"], p["width"], self.canvas
        )
        faded = ops.linear_fade(cropped, p["head"], p["tail"])
        if self.noise > 0:
            field = ops.gaussian(p["noise_at"], faded[0].numel())
            share = p["noise"].view(-1, 1, 1, 1)
            faded = ops.log_mixup_exp(faded, share * field.view_as(faded), p["noise"])
        masked = ops.mask_stretch(faded, p["band"], p["bands"], axis=2)
        return ops.mask_stretch(masked, p["frame"], p["frames"], axis=3)

    def clean(self, decoded: Tensor) -> Tensor:
        """The middle of the clip, ``[S]``."""
        return self._stretch(decoded, 0.5)

    def clean_batch(self, data: Tensor) -> Tensor:
        """``[B, S]`` to the normalised spectrogram."""
        return self._normalise(self.log_mel(data))

    def _normalise(self, x: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            raise ValueError("mean and std of the log-mels are neither given nor measured")
        return (x - self.mean) / self.std

    def get_extra_state(self) -> dict[str, Any]:
        """The memory: part of a run's checkpoint."""
        return {"past": self._past, "given": self._given}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._past, self._given = state["past"], state["given"]

    def _remember(self, x: Tensor) -> None:
        if self._past is None:
            self._past = x.new_zeros(self.memory, *x.shape[1:])
        x = gather_dealt(x)[-self.memory :]
        at = torch.arange(self._given, self._given + len(x), device=x.device) % self.memory
        self._past[at] = x
        self._given += len(x)

    def _place(self, length: int, offset: float) -> tuple[int, int]:
        """First sample and number of samples of a stretch; short clips are taken whole."""
        room = max(0, length - self.samples)
        return int(offset * (room + 1)), min(length, self.samples)

    def _stretch(self, wave: Tensor, offset: float) -> Tensor:
        start, count = self._place(len(wave), offset)
        missing = self.samples - count
        left = int(offset * (missing + 1))
        return functional.pad(wave[start : start + count], (left, missing - left))
