"""The front end of encoders that take spectrograms."""

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms, ``log(mel power + eps)`` with float32's eps.

    Args:
        rate: of the waveforms, in Hz.
        n_fft: window and transform length in samples (Hann).
        hop: samples from frame to frame.
        n_mels: mel bands, ``F``.
        f_min, f_max: the bands' range in Hz.
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
        """Frames ``T`` of a waveform of that many samples."""
        return 1 + samples // self.hop

    def forward(self, waveforms: Tensor) -> Tensor:
        """``[B, samples]`` to ``[B, 1, F, T]``."""
        self.to(waveforms.device)
        spectrum = self.spectrogram(waveforms)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)  # abs() is slow on CPUs
        return (self.mel(power) + torch.finfo(torch.float32).eps).log().unsqueeze(1).contiguous()
