"""The log-mel front end of the spectrogram encoders."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram


class LogMel(nn.Module):
    """Computes log-mel spectrograms ``log(mel power + eps)`` of waveforms, with float32's eps.

    Args:
        rate: sampling rate of the waveforms in Hz.
        n_fft: length of the FFT and its Hann window in samples.
        hop: samples between frames.
        n_mels: number of mel bands ``F``.
        f_min, f_max: frequency range of the bands in Hz.
    """

    def __init__(
        self,
        rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 160,
        n_mels: int = 64,
        f_min: float = 60.0,
        f_max: float = 7800.0,
    ):
        super().__init__()
        if f_max > rate / 2:
            raise ValueError(f"f_max {f_max:g} Hz is above half the rate, {rate / 2:g} Hz")
        self.hop, self.n_mels = hop, n_mels
        self.spectrogram = Spectrogram(n_fft, hop_length=hop, power=None)
        self.mel = MelScale(n_mels, rate, f_min, f_max, n_fft // 2 + 1)

    def frames(self, samples: int) -> int:
        """Returns the number of frames ``T`` of a waveform with ``samples`` samples."""
        return 1 + samples // self.hop

    def forward(self, waveforms: Tensor) -> Tensor:
        """Returns spectrograms ``[B, 1, F, T]`` of waveforms ``[B, samples]``."""
        self.to(waveforms.device)
        spectrum = self.spectrogram(waveforms)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)  # abs() is slow on CPUs
        log_mel = (self.mel(power) + torch.finfo(torch.float32).eps).log()
        return rearrange(log_mel, "b f t -> b 1 f t").contiguous()
